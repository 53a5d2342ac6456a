"""Memory of conversions: a part of a tensor, however large the checkpoint is."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save
from transformers import AutoTokenizer, LlamaConfig

from llmkit.config.schema import ModelConfig
from llmkit.convert.checkpoints.distributed_files import alone
from llmkit.convert.tensor_files import SafetensorsWriter, TensorShape
from llmkit.models.loading import load_on_meta
from llmkit.testing.tiny import tiny_model

pytestmark = pytest.mark.slow

PROGRAM = """
import json, resource, subprocess, sys
done = subprocess.run([sys.executable, "-m", "llmkit", "convert", *sys.argv[1:]], capture_output=True, text=True)
print(json.dumps([done.returncode, done.stderr, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024]))
"""
ALLOWED = 250_000_000
"""Bytes above those of a conversion of next to nothing: parts of 32 MiB in several types, and what libraries load."""


def peak_bytes(*arguments: object) -> int:
    line = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    code, said, peak = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    assert code == 0, said
    return peak


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """600 MB, most of it in one tensor."""
    directory = tmp_path_factory.mktemp("large")
    LlamaConfig(
        vocab_size=128_000,
        hidden_size=1024,
        intermediate_size=2048,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"],
    ).save_pretrained(directory)
    AutoTokenizer.from_pretrained(tiny_model()).save_pretrained(directory)
    model = load_on_meta(ModelConfig(path=str(directory)))
    shapes = {name: TensorShape(torch.float32, tuple(one.shape)) for name, one in model.named_parameters()}
    with SafetensorsWriter(directory / "model.safetensors", shapes) as writer:
        for name, shape in shapes.items():
            row = torch.randn(1, *shape.shape[1:]) if len(shape.shape) > 1 else torch.randn(1)
            writer.write(name, (row for _ in range(shape.shape[0])))
    return directory


@pytest.mark.parametrize(
    "options",
    [
        ["--dtype", "bfloat16", "--output", "out"],
        ["--dtype", "bfloat16", "--output", "out", "--verify"],
        ["--vocab-size", 130_000, "--output", "out"],
        ["--to", "dcp", "--output", "out"],
        ["--to", "torch", "--output", "out.pt"],
        ["--to", "gguf", "--dtype", "float16", "--output", "out.gguf"],
        ["--to", "gguf", "--quantize", "q8_0", "--output", "out.gguf"],
    ],
    ids=lambda options: "-".join(str(one).strip("-") for one in options if "out" not in str(one)) or "same",
)
def test_memory_does_not_grow_with_the_checkpoint(options: list[object], large: Path, tmp_path: Path):
    line = [tmp_path / one if str(one).startswith("out") else one for one in options]
    least = peak_bytes("checkpoint", tiny_model(), "--to", "safetensors", "--output", tmp_path / "tiny")
    assert peak_bytes("checkpoint", large, *line) < least + ALLOWED


@pytest.mark.parametrize("layout", ["dcp", "torch"])
def test_memory_does_not_grow_on_the_way_back(layout: str, large: Path, tmp_path: Path):
    made = tmp_path / ("made.pt" if layout == "torch" else "made")
    peak_bytes("checkpoint", large, "--to", layout, "--output", made)
    least = peak_bytes("checkpoint", tiny_model(), "--to", "safetensors", "--output", tmp_path / "tiny")
    assert peak_bytes("checkpoint", made, "--to", "safetensors", "--output", tmp_path / "out") < least + ALLOWED


def test_tensors_that_torch_has_saved_whole_are_read_in_parts(large: Path, tmp_path: Path):
    state = load_file(large / "model.safetensors")
    with alone():
        save(state, storage_writer=FileSystemWriter(tmp_path / "made", thread_count=1), no_dist=True)
    least = peak_bytes("checkpoint", tiny_model(), "--to", "safetensors", "--output", tmp_path / "tiny")
    made = peak_bytes("checkpoint", tmp_path / "made", "--to", "safetensors", "--output", tmp_path / "out")
    assert made < least + ALLOWED
