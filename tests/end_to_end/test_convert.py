"""Converting what runs of ours have written."""

import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from .conftest import Run


def test_a_run_that_added_tokens_merges_with_its_tokenizer(model: str, run: Run, tmp_path: Path):
    rows = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "<tool>ok"}]}] * 2
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--dataset", "files", "--dataset-path", tmp_path / "rows.jsonl", "--rows-per-step", 2, "--threads", 1]
    added = ["--adapter", "lora", "--set", "model.add_tokens=[<tool>]", "--output-dir", "run"]
    run("train", "sft", "--model", model, *data, "--max-steps", 2, "--learning-rate", "1e-2", *added)
    adapter = tmp_path / "run" / "checkpoints" / "step-2"
    document = json.loads(run("convert", "merge", adapter, "--output", "merged", "--verify", "--json").out)
    assert document["checks"]["logits"]["largest"] < 1e-5
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    (token,) = AutoTokenizer.from_pretrained(tmp_path / "merged").encode("<tool>")
    rows_of = merged.get_input_embeddings().weight
    assert token == 259
    assert rows_of.shape[0] == 260
    mean = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings().weight.mean(0)
    assert not torch.allclose(rows_of[token], mean), "the trained row is in it"
