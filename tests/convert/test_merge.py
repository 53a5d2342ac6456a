"""Adapters merged by the command: what is written says what base and adapter say, and what cannot be is refused."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import pytest
import safetensors.torch
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit import cli
from llmkit.convert.merging.combining import Combination, combine
from llmkit.models.vocabulary import is_tied
from llmkit.testing.tiny import tiny_model

MakeAdapter = Callable[..., Path]
TOKENS = torch.arange(40).reshape(2, 20)


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Writes a LoRA with random numbers as PEFT does; returns its directory."""

    def make(name: str = "adapter", seed: int = 1, **options: Any) -> Path:
        base = AutoModelForCausalLM.from_pretrained(tiny_model())
        settings = {"r": 4, "lora_alpha": 6, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
        with _unwarned():
            model = peft.get_peft_model(base, peft.LoraConfig(**(settings | options)))
        generator = torch.Generator().manual_seed(seed)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
        model.peft_config["default"].base_model_name_or_path = tiny_model()
        with _unwarned():
            model.save_pretrained(tmp_path / name, save_embedding_layers=False)
        return tmp_path / name

    return make


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(TOKENS).logits.float()


def with_adapter(adapter: Path) -> torch.Tensor:
    with _unwarned():
        return logits(peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model()), adapter))


def convert(*arguments: object) -> int:
    return cli.run(["convert", "merge", *map(str, arguments)])


def test_a_merged_lora_says_the_same(make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter = make_adapter(use_rslora=True, rank_pattern={"q_proj": 3}, alpha_pattern={"layers.1.mlp.down_proj": 9})
    assert convert(adapter, "--output", tmp_path / "out", "--verify", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["options"]["way"] == "tensor by tensor"
    assert document["checks"]["updated_weights"] == 4
    assert document["checks"]["logits"]["largest"] < 1e-5
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(merged), with_adapter(adapter), rtol=0, atol=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template
    manifest = json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert manifest["inputs"]["base"]["files"]["model.safetensors"]["sha256"]
    assert sorted(tmp_path.iterdir()) == [adapter, tmp_path / "out"], "nothing else is left behind"


def test_shards_and_types_are_kept_or_changed(make_adapter: MakeAdapter, tmp_path: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model(), dtype=torch.bfloat16)
    base.save_pretrained(tmp_path / "base", max_shard_size="20KB")
    adapter, shards = make_adapter(), sorted(path.name for path in (tmp_path / "base").glob("model-*.safetensors"))
    assert len(shards) > 2
    assert convert(adapter, "--base", tmp_path / "base", "--output", tmp_path / "same", "--verify") == 0
    assert sorted(path.name for path in (tmp_path / "same").glob("model-*.safetensors")) == shards
    assert convert(adapter, "--base", tmp_path / "base", "--output", tmp_path / "wide", "--dtype", "float32") == 0
    same, wide = (AutoModelForCausalLM.from_pretrained(tmp_path / name, dtype="auto") for name in ("same", "wide"))
    assert (same.dtype, wide.dtype) == (torch.bfloat16, torch.float32)
    for one, other in zip(same.parameters(), wide.parameters(), strict=True):
        assert torch.equal(one, other.bfloat16())


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["lm_head", "q_proj"]},
        {"target_modules": ["embed_tokens", "q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"use_dora": True},
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "olora"},
        {"trainable_token_indices": [3, 5]},
    ],
    ids=lambda options: "-".join(options),
)
def test_what_is_more_than_products_is_merged_in_memory(
    options: dict, make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make_adapter(**options)
    expected = with_adapter(adapter)
    assert convert(adapter, "--output", tmp_path / "out", "--verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["options"]["way"] == "in memory"
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)
    assert is_tied(merged) == ("lm_head" not in str(options) and "embed_tokens" not in str(options))


def test_weighted_adapters_are_a_weighted_sum(make_adapter: MakeAdapter, tmp_path: Path):
    one, two = make_adapter("one", 1), make_adapter("two", 2, r=2)
    weights = ["--weight", 0.5, "--weight", 2]
    assert convert(one, two, *weights, "--output", tmp_path / "sum", "--verify") == 0
    assert convert(one, "--weight", 0.5, "--output", tmp_path / "half") == 0
    assert convert(two, "--weight", 2, "--base", tmp_path / "half", "--output", tmp_path / "both") == 0
    total, both = (safetensors.torch.load_file(tmp_path / name / "model.safetensors") for name in ("sum", "both"))
    for name, tensor in total.items():
        torch.testing.assert_close(tensor, both[name], rtol=0, atol=1e-6)
    assert convert(one, two, "--method", "dare_ties", "--density", 0.7, "--output", tmp_path / "dare", "--verify") == 0


def test_ties_keeps_the_largest_values_and_the_sign_of_most():
    updates = [torch.tensor([[4.0, -1.0, 0.1, 2.0]]), torch.tensor([[2.0, 3.0, 0.2, -8.0]])]
    # Half of each is kept: 4 and 2, 3 and -8. At the last place -8 outweighs 2.
    total = combine(updates, [1.0, 1.0], Combination("ties", (1.0, 1.0), density=0.5), "w")
    assert total.tolist() == [[4.0, 3.0, 0.0, -8.0]]


def test_svd_keeps_the_strongest_direction():
    total = combine([torch.diag(torch.tensor([3.0, 1.0]))], [1.0], Combination("svd", (1.0,), rank=1), "w")
    torch.testing.assert_close(total, torch.tensor([[3.0, 0.0], [0.0, 0.0]]))


def test_dare_draws_the_same_for_a_seed_and_keeps_the_mean():
    update = torch.ones(200, 200)
    drawn = [combine([update], [1.0], Combination("dare_linear", (1.0,), 0.25, seed=seed), "w") for seed in (1, 1, 2)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert sorted(set(drawn[0].flatten().tolist())) == [0.0, 4.0]
    assert abs(drawn[0].mean().item() - 1) < 0.05


def test_what_is_there_stays(make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    adapter, out = make_adapter(), tmp_path / "out"
    assert convert(adapter, "--output", out) == 0
    assert convert(adapter, "--output", out) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert convert(adapter, "--output", out, "--overwrite") == 0
    assert convert(adapter, "--output", adapter, "--overwrite") == 2
    assert "what is converted" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    assert convert(adapter, "--output", tmp_path / "mine", "--overwrite") == 2
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_damage_is_told_with_its_place(make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def error_of(change: Callable[[dict[str, torch.Tensor]], None], name: str) -> str:
        adapter = make_adapter(name)
        file = adapter / "adapter_model.safetensors"
        tensors = safetensors.torch.load_file(file)
        change(tensors)
        safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, file)
        assert convert(adapter, "--output", tmp_path / "out") in (1, 2)
        assert not (tmp_path / "out").exists()
        return capsys.readouterr().err

    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    assert "not finite" in error_of(lambda tensors: tensors[key].fill_(float("nan")), "nan")
    assert "missing" in error_of(lambda tensors: tensors.pop(key), "half")
    assert "of another model" in error_of(lambda tensors: tensors.update({key: tensors[key][:, :8]}), "narrow")
    torn = make_adapter("torn") / "adapter_model.safetensors"
    torn.write_bytes(torn.read_bytes()[:-10])
    assert convert(torn.parent, "--output", tmp_path / "out") == 2
    assert "no whole safetensors file" in capsys.readouterr().err


def test_numbers_too_large_for_the_type_are_told(
    make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make_adapter(lora_alpha=4_000_000)
    assert convert(adapter, "--output", tmp_path / "out", "--dtype", "float16") == 1
    assert "float16 cannot hold" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--weight", "1", "--weight", "2"], "--weight"),
        (["--method", "svd"], "--rank"),
        (["--density", "0.5"], "no effect"),
        (["--seed", "3"], "draws nothing"),
        (["--method", "ties"], "there is one adapter"),
        (["--base", "no/such/dir"], "no such directory"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: list[str], what: str, make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert convert(make_adapter(), "--output", tmp_path / "out", *options) == 2
    assert what in capsys.readouterr().err


def test_starts_that_lost_their_base_and_quantised_bases_are_refused(
    make_adapter: MakeAdapter, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter = make_adapter()
    config = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa_niter_4"}))
    assert convert(adapter, "--output", tmp_path / "out") == 2
    assert "has changed the base weights" in capsys.readouterr().err
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(tiny_model()).save_pretrained(base)
    values = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(values | {"quantization_config": {"quant_method": "gptq"}}))
    assert convert(make_adapter("plain"), "--base", base, "--output", tmp_path / "out") == 2
    assert "quantised (gptq)" in capsys.readouterr().err


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without what PEFT says of tied weights and of transformers' names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
