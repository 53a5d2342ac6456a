"""Runs that add tokens to their model: trained, saved with their tokenizer, resumed, refused where rows would not."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from .conftest import Run, read_metrics

ADDED = ["--set", "model.add_tokens=[<tool>]", "--set", "model.add_special_tokens=[<|turn|>]"]
ROW = 259
"""Of the first new token: the model has had as many."""


@pytest.fixture
def tagged(model: str, tmp_path: Path) -> list[object]:
    """Two conversations with the new token in them."""
    path = tmp_path / "tagged.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "<tool>ok"}]}
        for text in ("one", "two")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--dataset", "files", "--dataset-path", path, "--rows-per-step", 2, "--max-steps", 4, "--threads", 1]
    return ["train", "sft", "--model", model, *data, "--checkpoint-every", 2, "--learning-rate", "1e-2", *ADDED]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    (path,) = checkpoint.glob("*model.safetensors")
    return safetensors.torch.load_file(path)


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_a_resumed_run_has_the_same_rows(adapter: str, tagged: list, run: Run, tmp_path: Path):
    line = [*tagged, "--adapter", adapter, "--set", "optim.schedule=constant", "--output-dir"]
    run(*line, "whole")
    run(*line, "parts", "--max-steps", 2)
    run("train", "sft", "--resume", "--output-dir", "parts", "--max-steps", 4)
    one, two = (weights(tmp_path / name / "checkpoints" / "step-4") for name in ("whole", "parts"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert [row["loss"] for row in read_metrics(tmp_path / "whole")] == [
        row["loss"] for row in read_metrics(tmp_path / "parts")
    ]


def test_a_full_checkpoint_loads_with_its_tokenizer(tagged: list, run: Run, tmp_path: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run(*tagged, "--set", "model.pad_vocab_to_multiple_of=64", "--output-dir", "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    assert tokenizer.convert_tokens_to_ids(["<tool>", "<|turn|>"]) == [ROW, ROW + 1]
    weight = AutoModelForCausalLM.from_pretrained(checkpoint).get_input_embeddings().weight
    assert weight.shape[0] == 320
    assert not torch.equal(weight[ROW], weight[ROW + 1]), "only the first is in the rows"
    # What has its tokens already grows no more.
    err = run(*tagged, "--model", checkpoint, "--max-steps", 1).err
    assert read_metrics(next((tmp_path / "runs").iterdir()))
    assert "error" not in err


def test_pefts_own_loader_reads_an_adapter(tagged: list, model: str, run: Run, tmp_path: Path):
    from peft import AutoPeftModelForCausalLM

    from llmkit.adapters.wrapping import quiet

    run(*tagged, "--adapter", "lora", "--output-dir", "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
    with quiet():
        loaded = AutoPeftModelForCausalLM.from_pretrained(checkpoint)
    (saved,) = [value for key, value in weights(checkpoint).items() if "trainable_tokens_delta" in key]
    rows = loaded.get_input_embeddings()(torch.tensor([ROW, ROW + 1]))
    assert torch.equal(rows, saved)


def test_rewards_train_new_tokens_too(grpo: list, run: Run, tmp_path: Path):
    run(*grpo, *ADDED, "--adapter", "lora", "--kl-coef", 0.1, "--max-steps", 2, "--output-dir", "run")
    assert read_metrics(tmp_path / "run")[0]["kl"] == 0.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--adapter", "ia3"], "would leave the tokens that model.add_tokens adds untrained; use adapter.name=lora"),
        (["--adapter", "lora", "--set", "model.pad_vocab_to_multiple_of=64"], "which an adapter's checkpoint does not"),
        (["--set", 'adapter.freeze=["*embed*"]'], "leaves 'model.embed_tokens.weight' as it is"),
        (["--set", "model.add_tokens=['']"], "has no visible character"),
    ],
)
def test_what_would_not_train_is_refused_before_anything_loads(settings: list, message: str, tagged: list, run: Run):
    assert message in run(*tagged, *settings, code=2).error
