"""Weights of 8 bits by torchao: transformers loads them, and they say nearly the same."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from llmkit import cli
from llmkit.convert.checkpoints import torchao_weights
from llmkit.testing.tiny import tiny_model


def convert(*arguments: object) -> int:
    return cli.run(["convert", "checkpoint", *map(str, arguments)])


@pytest.mark.parametrize("dtype", ["same", "bfloat16"])
def test_int8_weights_load_and_say_nearly_the_same(dtype: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = ["--quantize", "int8_weight_only", "--dtype", dtype, "--output", tmp_path / "out", "--json"]
    assert convert(tiny_model(), *line) == 0
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert checks["loaded_again"] == "equal logits"
    assert 0 < checks["relative_error"] < 0.05
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert type(model.model.layers[0].mlp.down_proj.weight).__name__ == "Int8Tensor"
    tokens = torch.arange(40).reshape(2, 20)
    expected = AutoModelForCausalLM.from_pretrained(tiny_model())(tokens).logits
    torch.testing.assert_close(model(tokens).logits.float(), expected, rtol=0, atol=0.05)
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_what_does_not_run_here_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    line = [tiny_model(), "--output", tmp_path / "out", "--quantize"]
    assert convert(*line, "int4_weight_only") == 2
    assert "mslk on a GPU" in capsys.readouterr().err
    assert convert(*line, "int8_weight_only", "--vocab-size", 300) == 2
    assert "resize it before" in capsys.readouterr().err
    monkeypatch.setattr(torchao_weights, "find_spec", lambda name: None)
    assert convert(*line, "int8_weight_only") == 2
    assert "pip install 'llmkit[torchao]'" in capsys.readouterr().err


def test_logits_that_rounding_does_not_explain_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(torchao_weights.LIMITS, "int8_weight_only", 1e-6)
    assert convert(tiny_model(), "--output", tmp_path / "out", "--quantize", "int8_weight_only") == 1
    assert "nothing was written" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
