"""Weights from one layout to another: the same names, shapes, types and bits."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from transformers import AutoModelForCausalLM

from llmkit import cli
from llmkit.convert.checkpoints.safetensors_files import shards
from llmkit.convert.tensor_files import TensorShape, WeightFiles
from llmkit.testing.tiny import tiny_model


def convert(*arguments: object) -> int:
    return cli.run(["convert", "checkpoint", *map(str, arguments)])


def tensors_of(directory: Path | str) -> dict[str, torch.Tensor]:
    files = WeightFiles(Path(directory))
    return {name: files.read(name) for name in files.tensors}


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    assert all(one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("to", "name"), [("dcp", "distributed"), ("torch", "model.pt")])
def test_there_and_back_is_bit_exact(to: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(tiny_model(), "--to", to, "--output", tmp_path / name, "--verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["checks"]["values"] == "equal, bit for bit"
    back = tmp_path / "back"
    assert convert(tmp_path / name, "--to", "safetensors", "--output", back, "--verify") == 0
    assert_same(tensors_of(tiny_model()), tensors_of(back))


def test_a_model_comes_along_with_its_files_in_another_type_and_in_shards(tmp_path: Path):
    line = ["--dtype", "bfloat16", "--max-shard-gb", 2e-5, "--output", tmp_path / "small", "--verify"]
    assert convert(tiny_model(), *line) == 0
    assert len(list((tmp_path / "small").glob("model-*.safetensors"))) > 2
    small = AutoModelForCausalLM.from_pretrained(tmp_path / "small", dtype="auto")
    assert small.dtype == torch.bfloat16
    whole = AutoModelForCausalLM.from_pretrained(tiny_model()).bfloat16()
    assert_same(small.state_dict(), whole.state_dict())
    assert (tmp_path / "small" / "tokenizer.json").is_file()
    assert convert(tmp_path / "small", "--output", tmp_path / "one") == 0
    assert_same(tensors_of(tmp_path / "one"), safetensors.torch.load_file(tmp_path / "one" / "model.safetensors"))


def test_every_type_and_shape_is_kept(tmp_path: Path):
    state = {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "count": torch.tensor([1, 2**40]),
        "mask": torch.tensor([True, False]),
        "half": torch.randn(3, 5).half(),
        "byte": torch.arange(7, dtype=torch.uint8),
        "small": torch.randn(4).to(torch.float8_e4m3fn),
        "turned": torch.randn(4, 6).T,
    }
    torch.save(state, tmp_path / "state.pt")
    assert convert(tmp_path / "state.pt", "--output", tmp_path / "out", "--verify") == 0
    read = safetensors.torch.load_file(tmp_path / "out" / "model.safetensors")
    assert read.keys() == state.keys()
    for name, tensor in state.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name].float(), tensor.float())


def test_starts_of_names_are_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    torch.save({"module.a.w": torch.ones(2), "module.b.w": torch.zeros(2), "step": 7}, tmp_path / "s.bin")
    line = [tmp_path / "s.bin", "--output", tmp_path / "out"]
    assert convert(*line, "--rename", "module.a.=x.", "--rename", "module.=") == 0
    assert "1 entries are no tensors and were left out: step" in capsys.readouterr().err
    assert sorted(tensors_of(tmp_path / "out")) == ["b.w", "x.w"]
    assert convert(*line, "--overwrite", "--rename", "modul.=") == 2
    assert "no name begins so" in capsys.readouterr().err
    assert convert(*line, "--overwrite", "--rename", "module.a.=q.", "--rename", "module.b.=q.") == 2
    assert "would both be called" in capsys.readouterr().err


def test_damage_is_told_and_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = tmp_path / "model"
    AutoModelForCausalLM.from_pretrained(tiny_model()).save_pretrained(model, max_shard_size="30KB")
    shard, *_ = sorted(model.glob("model-*.safetensors"))
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    assert convert(model, "--output", tmp_path / "out") == 2
    assert f"{shard}: no whole safetensors file" in capsys.readouterr().err
    shard.unlink()
    assert convert(model, "--output", tmp_path / "out") == 2
    assert "missing" in capsys.readouterr().err
    (tmp_path / "x.pt").write_bytes(b"PK not a checkpoint")
    assert convert(tmp_path / "x.pt", "--output", tmp_path / "out") == 2
    torch.save({"w": torch.tensor([1.0, float("nan")])}, tmp_path / "nan.pt")
    assert convert(tmp_path / "nan.pt", "--output", tmp_path / "out") == 1
    assert "not finite" in capsys.readouterr().err
    assert convert(tiny_model(), "--to", "torch", "--output", tmp_path / "out") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "nan.pt", "x.pt"]


def test_a_shard_is_full_before_the_next_begins():
    shapes = {name: TensorShape(torch.float32, (size,)) for name, size in (("a", 2), ("b", 1), ("c", 9), ("d", 1))}
    assert shards(shapes, 12) == [["a", "b"], ["c"], ["d"]]


@pytest.mark.parametrize(("to", "name"), [("dcp", "distributed"), ("torch", "model.pt"), ("safetensors", "model")])
def test_parts_of_tensors_come_together_again(to: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("llmkit.convert.tensor_source.PART_BYTES", 1000)
    assert convert(tiny_model(), "--to", to, "--output", tmp_path / name, "--verify") == 0
    assert convert(tmp_path / name, "--output", tmp_path / "back", "--verify") == 0
    assert_same(tensors_of(tiny_model()), tensors_of(tmp_path / "back"))


def test_torch_reads_what_was_written(tmp_path: Path):
    assert convert(tiny_model(), "--to", "torch", "--output", tmp_path / "model.pt") == 0
    state = tensors_of(tiny_model())
    assert_same(torch.load(tmp_path / "model.pt", weights_only=True), state)
    assert zipfile.ZipFile(tmp_path / "model.pt").testzip() is None, "checksums are those of the values"
    assert convert(tiny_model(), "--to", "dcp", "--output", tmp_path / "dcp") == 0
    dcp_to_torch_save(tmp_path / "dcp", tmp_path / "from_dcp.pt")
    assert_same(torch.load(tmp_path / "from_dcp.pt", weights_only=True), state)


def sharded(directory: Path) -> Path:
    AutoModelForCausalLM.from_pretrained(tiny_model()).save_pretrained(directory, max_shard_size="30KB")
    return directory


def test_a_tensor_that_only_the_index_knows_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    shard, *_ = sorted(sharded(tmp_path / "model").glob("model-*.safetensors"))
    state = safetensors.torch.load_file(shard)
    lost = sorted(state)[0]
    safetensors.torch.save_file({name: tensor for name, tensor in state.items() if name != lost}, shard)
    assert convert(tmp_path / "model", "--output", tmp_path / "out") == 2
    assert f"model.safetensors.index.json names {lost}, and no file has it (1 such)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"hidden_size": 64}, "and config.json's model has [259, 64]: they are of different models"),
        ({"num_hidden_layers": 3, "layer_types": None}, "of config.json's model is not among the weights (11 such)"),
    ],
)
def test_weights_of_another_model_than_the_configuration_are_refused(
    change: dict[str, Any], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(tiny_model(), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    assert convert(tmp_path / "model", "--output", tmp_path / "out") == 2
    err = capsys.readouterr().err
    assert what in err
    assert "move config.json elsewhere" in err
    assert not (tmp_path / "out").exists()
    config.unlink()
    assert convert(tmp_path / "model", "--output", tmp_path / "out") == 0


def test_an_unknown_architecture_is_converted_and_said_to_be_unknown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copytree(tiny_model(), tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({"model_type": "mystery", "architectures": ["MysteryForCausalLM"]}))
    assert convert(tmp_path / "model", "--output", tmp_path / "out", "--json") == 0
    (note,) = json.loads(capsys.readouterr().out)["notes"]
    assert "were not held against config.json" in note
    assert "mystery" in note


@pytest.mark.parametrize("options", [["--to", "torch", "--output", "out.pt"], ["--output", "out"]])
def test_a_limit_on_the_size_of_files_is_told_and_leaves_nothing(options: list[str], tmp_path: Path):
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_960, 40_960)); "
    limited += "from llmkit import cli; sys.exit(cli.run(sys.argv[1:]))"
    line = [sys.executable, "-c", limited, "convert", "checkpoint", tiny_model(), *options]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "ulimit -f" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
