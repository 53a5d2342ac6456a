"""Tokenizer and data of a run."""

from pathlib import Path

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.errors import ModelError
from llmkit.testing.tiny import tiny_model
from llmkit.train.inputs import Inputs, open_inputs
from llmkit.types import Message

TEMPLATE = "{% for m in messages %}{{ m.role }}> {{ m.content }}{{ eos_token }}\n{% endfor %}"


def inputs(*overrides: str) -> Inputs:
    settings = [f"model.path={tiny_model()}", "dataset.name=arithmetic", *overrides]
    return open_inputs(resolve(SFTRun, command="train/sft", overrides=settings, environ={}).run)


def test_a_template_of_the_run_goes_with_the_tokenizer_into_checkpoints(tmp_path: Path):
    path = tmp_path / "template.jinja"
    path.write_text(TEMPLATE)
    opened = inputs(f"model.chat_template={path}")
    assert opened.codec.decode(opened.codec.conversation_ids([Message("user", "hi")])) == "user> hi<|im_end|>\n"
    opened.tokenizer.save_pretrained(tmp_path / "saved")
    assert (tmp_path / "saved" / "chat_template.jinja").read_text() == TEMPLATE


def test_a_template_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match=r"model\.chat_template=.*missing\.jinja: cannot be read"):
        inputs(f"model.chat_template={tmp_path / 'missing.jinja'}")


def test_samples_stay_within_the_context_of_the_model():
    assert inputs("data.max_length=4096").max_length == 512
    assert inputs("data.max_length=100").max_length == 100
