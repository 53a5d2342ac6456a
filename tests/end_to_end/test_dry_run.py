"""What a dry run foretells, against what a run then needs."""

import json
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer, Qwen3Config

from llmkit.train.dry_run.memory_meter import MemoryMeter

from .conftest import Command, Run, read_metrics


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell the peak of a process alike")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_memory_is_what_the_run_then_takes(llmkit: Command, dtype: str, tmp_path: Path):
    preset = ["train", "sft", "--preset", "arithmetic", "--max-steps", 8, "--set", f"device.compute_dtype={dtype}"]
    figures = json.loads(llmkit.run(*preset, "--dry-run", "--json")[0])
    assert figures["calibrated"]
    llmkit.run(*preset, "--output-dir", tmp_path / "run")
    peak = max(row.get("peak_memory_bytes", 0) for row in read_metrics(tmp_path / "run"))
    assert figures["total_bytes"] == pytest.approx(peak, rel=0.15)
    assert figures["gradient_bytes"] == 4 * figures["parameters"]
    # Weights and the buffers of the rotary embedding.
    assert figures["weight_bytes"] == pytest.approx(4 * figures["parameters"], rel=1e-4)
    assert figures["optimizer_bytes"] == pytest.approx(8 * figures["parameters"], rel=1e-3)


def test_what_does_not_fit_gets_advice_with_savings(run: Run, sft: list[object], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MemoryMeter, "limit", lambda self: 1_000_000)
    much = ["--rows-per-step", 4000, "--set", "batch.tokens_per_micro_batch=1000000"]
    ended = run(*sft, *much, "--dry-run", "--json")
    figures = json.loads(ended.out)
    assert not figures["fits"]
    assert not figures["calibrated"]
    savings = {advice["settings"][0]: advice["saves_bytes"] for advice in figures["advice"]}
    assert list(savings.values()) == sorted(savings.values(), reverse=True)
    assert {"device.compute_dtype=bfloat16", "device.gradient_checkpointing=true"} <= savings.keys()
    # Half the bits, half the activations.
    assert savings["device.compute_dtype=bfloat16"] == pytest.approx(figures["activation_bytes"] / 2, rel=0.2)
    assert "warning: this run needs about" in ended.err
    assert "--set " in ended.err


def test_a_model_of_shapes_alone_is_calculated(run: Run, model: str, chats: Path, tmp_path: Path):
    large = tmp_path / "large"
    Qwen3Config(
        vocab_size=151_936, hidden_size=4096, intermediate_size=12_288, num_hidden_layers=36, num_attention_heads=32,
        num_key_value_heads=8, head_dim=128, tie_word_embeddings=False,
    ).save_pretrained(large)  # fmt: skip
    AutoTokenizer.from_pretrained(model).save_pretrained(large)
    command = ["train", "sft", "--model", large, "--dataset", "files", "--dataset-path", chats]
    ended = run(*command, "--dry-run", "--json")
    figures = json.loads(ended.out)
    # Qwen3-8B: 8.19 billion weights; weights, gradients and AdamW's two moments in float32.
    assert figures["parameters"] == 8_190_735_360
    assert figures["weight_bytes"] == figures["gradient_bytes"] == 4 * 8_190_735_360
    assert figures["optimizer_bytes"] == pytest.approx(8 * 8_190_735_360, rel=1e-6)
    assert not figures["calibrated"]
    assert f"Calculated, not measured: model.path={large} has no weights" in ended.err
    assert "no weights (model.safetensors or its shards)" in run(*command, "--max-steps", 1, code=2).error
