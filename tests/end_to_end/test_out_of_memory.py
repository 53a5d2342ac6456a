"""Runs that find no memory, under a real limit: what there was no room for, what to change, and nothing lost."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import init_empty_weights
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from .conftest import Run, read_metrics

LIMITED = """
import resource, sys
import torch
import transformers.models.qwen3.modeling_qwen3
from llmkit import cli
from llmkit.train import dpo, grpo, sft

torch.ones(64, 64) @ torch.ones(64, 64)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(cli.run(sys.argv[2:]))
"""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="address space is limited on Linux alone")


def fail(megabytes: int, *arguments: object, directory: Path, code: int = 1) -> str:
    """Run a command line that may take `megabytes` more than its libraries do; returns its standard error."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(megabytes << 20), *map(str, arguments)],
        cwd=directory,
        env={**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


def test_a_step_too_large_costs_no_finished_one(model: str, run: Run, tmp_path: Path):
    lengths = [1] * 400 + [400] * 400
    rows = [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b" * n}]} for n in lengths
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    small_then_large = ["--rows-per-step", 200, "--set", "data.shuffle=false", "--checkpoint-every", 0]
    data = ["--dataset", "files", "--dataset-path", tmp_path / "rows.jsonl"]
    one_pass = ["--set", "batch.tokens_per_micro_batch=1000000", "--output-dir", out]
    err = fail(300, "train", "sft", "--model", model, *data, *small_then_large, *one_pass, directory=tmp_path)
    (message,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message.startswith("error: out of memory in the ")
    assert "pass of a micro-batch of " in message
    assert "where " in message
    assert "--set batch.tokens_per_micro_batch=500000" in message
    assert "--set device.gradient_checkpointing=true" in message
    assert f"{out}: saved after step 2" in err
    assert [row["step"] for row in read_metrics(out)] == [1, 2]
    run("train", "sft", "--resume", "--output-dir", out, "--set", "batch.tokens_per_micro_batch=4096")
    assert [row["step"] for row in read_metrics(out)] == [1, 2, 3, 4]


def test_a_model_too_large_is_told_by_its_name(model: str, chats: Path, tmp_path: Path):
    config = Qwen3Config(
        vocab_size=20_000, hidden_size=1024, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=1, head_dim=32, tie_word_embeddings=False,
    )  # fmt: skip
    with init_empty_weights():
        model_of_zeros = Qwen3ForCausalLM(config)
    model_of_zeros.to_empty(device="cpu").save_pretrained(tmp_path / "large")
    AutoTokenizer.from_pretrained(model).save_pretrained(tmp_path / "large")
    data = ["--dataset", "files", "--dataset-path", chats]
    # The file of 165 MB cannot be mapped, or its weights cannot be laid beside it.
    err = fail(200, "train", "sft", "--model", tmp_path / "large", *data, "--max-steps", 1, directory=tmp_path)
    assert f"error: out of memory in loading model.path={tmp_path / 'large'}" in err
    assert "--set model.quantization=bnb_4bit" in err


def test_completions_too_many_at_once(grpo: list[object], tmp_path: Path):
    many = ["--group-size", 1000, "--max-new-tokens", 200, "--max-length", 500, "--set", "engine.max_batch_size=4000"]
    err = fail(120, *grpo, *many, directory=tmp_path, code=2)
    found = re.search(
        r"error: the system gives no [\d.]+ MB for a KV cache of (\d+) blocks. Try engine.num_blocks=(\d+)", err
    )
    assert found
    assert 0 < int(found[2]) < int(found[1])
