"""`llmkit presets`, run as the program runs it."""

import json
from pathlib import Path

import pytest

from llmkit.cli import run


@pytest.fixture
def llmkit(capsys, monkeypatch, tmp_path, presets):
    """Runs a command line where three presets are installed."""
    presets("train/grpo/gsm8k", "# Word problems on a GPU.\n# Two hours.\nseed: 1\n")
    presets("train/sft/gsm8k", "# Worked answers.\nseed: 2\n")
    presets("train/sft/chat", "seed: 3\n")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["presets", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_list(llmkit):
    code, out, err = llmkit("list")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "train/grpo/gsm8k  Word problems on a GPU.",
        "train/sft/chat",
        "train/sft/gsm8k   Worked answers.",
    ]
    assert llmkit("list", "train/sft")[1].splitlines() == ["train/sft/chat", "train/sft/gsm8k  Worked answers."]
    assert llmkit("list", "serve") == (0, "", "No preset of serve.\n")


def test_list_as_json(llmkit, tmp_path):
    (one,) = json.loads(llmkit("list", "train/grpo", "--json")[1])
    path = str(tmp_path / "presets/train/grpo/gsm8k.yaml")
    summary = "Word problems on a GPU."
    assert one == {"name": "train/grpo/gsm8k", "package": "llmkit", "summary": summary, "path": path}


def test_show(llmkit):
    assert llmkit("show", "train/sft/gsm8k") == (0, "# Worked answers.\nseed: 2\n", "")
    assert llmkit("show", "chat") == (0, "seed: 3\n", "")


def test_a_short_name_that_several_have(llmkit):
    code, _, err = llmkit("show", "gsm8k")
    assert code == 2
    assert err == "error: Several presets are named 'gsm8k': train/grpo/gsm8k, train/sft/gsm8k. Give the whole name.\n"


def test_an_unknown_name(llmkit):
    code, _, err = llmkit("show", "chatt")
    assert code == 2
    assert "no preset or file named 'chatt'" in err


def test_copy_overwrites_nothing_unasked(llmkit):
    assert llmkit("copy", "chat") == (0, "chat.yaml\n", "")
    assert Path("chat.yaml").read_text() == "seed: 3\n"
    Path("chat.yaml").write_text("seed: 9\n")
    code, _, err = llmkit("copy", "chat")
    assert code == 2
    assert "chat.yaml: this file is there already" in err
    assert Path("chat.yaml").read_text() == "seed: 9\n"
    assert llmkit("copy", "chat", "--force")[0] == 0
    assert Path("chat.yaml").read_text() == "seed: 3\n"


def test_copy_to_a_directory_and_to_a_new_one(llmkit):
    Path("mine").mkdir()
    assert llmkit("copy", "chat", "mine")[1] == "mine/chat.yaml\n"
    assert llmkit("copy", "chat", "new/one.yaml")[1] == "new/one.yaml\n"
    assert Path("new/one.yaml").read_text() == "seed: 3\n"
    code, _, err = (
        llmkit("copy", "chat", "chat.yaml/inside/one.yaml") if llmkit("copy", "chat")[0] == 0 else (0, "", "")
    )
    assert code == 2
    assert "cannot be written" in err
