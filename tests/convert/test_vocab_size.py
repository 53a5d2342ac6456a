"""Embeddings with another number of rows: old tokens score as before, new ones like the average."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llmkit import cli
from llmkit.convert.tensor_files import WeightFiles
from llmkit.models.vocabulary import is_tied
from llmkit.testing.tiny import tiny_model

ROWS = 259
TOKENS = torch.arange(40).reshape(2, 20)


def convert(*arguments: object) -> int:
    return cli.run(["convert", "checkpoint", *map(str, arguments)])


def logits(path: Path | str) -> torch.Tensor:
    with torch.no_grad():
        return AutoModelForCausalLM.from_pretrained(path).eval()(TOKENS).logits


def test_more_rows_are_the_mean_of_the_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(tiny_model(), "--pad-vocab-to-multiple", 64, "--output", tmp_path / "out", "--verify", "--json") == 0
    assert json.loads(capsys.readouterr().out)["options"]["vocab_size"] == 320
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.vocab_size == 320
    assert is_tied(model)
    before, after = logits(tiny_model()), logits(tmp_path / "out")
    torch.testing.assert_close(after[..., :ROWS], before, rtol=0, atol=1e-5)
    torch.testing.assert_close(after[..., ROWS:], before.mean(-1, keepdim=True).expand(2, 20, 61), rtol=0, atol=1e-5)
    text = "tokens as before"
    assert AutoTokenizer.from_pretrained(tmp_path / "out")(text) == AutoTokenizer.from_pretrained(tiny_model())(text)


def test_a_head_of_its_own_grows_too_and_rows_to_spare_can_go(tmp_path: Path):
    model = AutoModelForCausalLM.from_pretrained(tiny_model(), tie_word_embeddings=False)
    model.lm_head.weight = torch.nn.Parameter(torch.randn(ROWS, 32))
    model.save_pretrained(tmp_path / "untied")
    AutoTokenizer.from_pretrained(tiny_model()).save_pretrained(tmp_path / "untied")
    assert convert(tmp_path / "untied", "--vocab-size", 300, "--output", tmp_path / "grown", "--verify") == 0
    grown = WeightFiles(tmp_path / "grown")
    assert grown.tensors["lm_head.weight"].shape == grown.tensors["model.embed_tokens.weight"].shape == (300, 32)
    head = grown.read("lm_head.weight")
    torch.testing.assert_close(head[ROWS:], head[:ROWS].mean(0).expand(41, 32))
    assert convert(tmp_path / "grown", "--vocab-size", ROWS, "--output", tmp_path / "back", "--verify") == 0
    torch.testing.assert_close(logits(tmp_path / "back"), logits(tmp_path / "untied"), rtol=0, atol=0)


def test_parts_of_a_large_embedding_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert convert(tiny_model(), "--vocab-size", 300, "--output", tmp_path / "whole") == 0
    monkeypatch.setattr("llmkit.convert.tensor_source.PART_BYTES", 7 * 32 * 4)
    assert convert(tiny_model(), "--vocab-size", 300, "--output", tmp_path / "parts", "--verify") == 0
    files = [tmp_path / name / "model.safetensors" for name in ("whole", "parts")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_tokens_keep_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert convert(tiny_model(), "--vocab-size", 200, "--output", tmp_path / "out") == 2
    assert "the tokenizer has token 258; give at least 259" in capsys.readouterr().err
    assert convert(tiny_model(), "--vocab-size", 300, "--pad-vocab-to-multiple", 8, "--output", tmp_path / "out") == 2
    assert "give one" in capsys.readouterr().err
    weights = Path(tiny_model()) / "model.safetensors"
    assert convert(weights, "--vocab-size", 300, "--output", tmp_path / "out") == 2
    assert "no config.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_gets_the_rows_too(tmp_path: Path):
    line = ["--to", "gguf", "--vocab-size", 320, "--output", tmp_path / "x.gguf", "--verify"]
    assert convert(tiny_model(), *line) == 0
