"""`llmkit config`, run as the program runs it."""

import json
from pathlib import Path

import pytest

from llmkit.cli import run


@pytest.fixture
def llmkit(capsys, monkeypatch, tmp_path):
    """Runs a command line in an empty directory and gives exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(["config", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_show_prints_the_file_that_repeats_the_run(llmkit):
    code, out, err = llmkit("show", "train/sft", "--set", "dataset=arithmetic", "--set", "seed=5")
    assert (code, err) == (0, "")
    assert out.startswith("# llmkit train sft\n")
    assert "seed: 5  # --set seed\n" in out
    Path("again.yaml").write_text(out)
    code, second, _ = llmkit("show", "train/sft", "--config", "again.yaml", "--json")
    assert code == 0
    code, first, _ = llmkit("show", "train/sft", "--set", "dataset=arithmetic", "--set", "seed=5", "--json")
    assert json.loads(first) == json.loads(second)


def test_show_masks_secrets(llmkit):
    arguments = ("--set", "dataset=arithmetic", "--set", "trackers=[{name: wandb, api_key: geheim}]")
    for extra in ((), ("--json",)):
        code, out, err = llmkit("show", "train/sft", *arguments, *extra)
        assert code == 0
        assert "geheim" not in out + err


def test_errors_go_to_standard_error_with_code_2(llmkit):
    code, out, err = llmkit("show", "train/sft", "--set", "lr=1", "--set", "dataset=files")
    assert (code, out) == (2, "")
    assert "--set lr=1: unknown key. 'lr' lives at optim.learning_rate.\n" in err
    assert "dataset.path: not set" in err


def test_explain_a_key(llmkit):
    Path("run.yaml").write_text("dataset: arithmetic\noptim:\n  learning_rate: 1e-4\n")
    overrides = ("--config", "run.yaml", "--set", "optim.learning_rate=1e-5")
    code, out, _ = llmkit("explain", "train/sft", "optim.learning_rate", *overrides)
    assert code == 0
    assert out.splitlines() == [
        "optim.learning_rate: 1.0e-05",
        "  Peak learning rate.",
        "  set by    --set optim.learning_rate, command line: 1e-5",
        "  overrides run.yaml:3:18, --config file: 1e-4",
        "  type      number",
        "  limits    at least 0",
        "  default   1.0e-05",
    ]
    code, out, _ = llmkit("explain", "train/sft", "optim.learning_rate", *overrides, "--json")
    (one,) = json.loads(out)
    assert one["set_by"] == {"layer": "set", "place": "--set optim.learning_rate", "text": "1e-5"}
    assert one["overrides"] == [{"layer": "file", "place": "run.yaml:3:18", "text": "1e-4"}]


def test_explain_a_section_tells_all_its_keys(llmkit):
    code, out, _ = llmkit("explain", "train/sft", "checkpoint", "--set", "dataset=arithmetic")
    assert code == 0
    assert [line for line in out.splitlines() if line and not line.startswith(" ")] == [
        "checkpoint", "checkpoint.every_steps: 100", "checkpoint.keep_last: 2",
        "checkpoint.asynchronous: true",
        "checkpoint.best_metric: null", "checkpoint.best_mode: auto",
    ]  # fmt: skip


def test_explain_an_unknown_key(llmkit):
    code, _, err = llmkit("explain", "train/sft", "optim.lr", "--set", "dataset=arithmetic")
    assert code == 2
    assert err == "error: optim.lr: no such key. Did you mean 'learning_rate'?\n"


def test_diff_of_files_shows_keys_values_and_places(llmkit):
    Path("a.yaml").write_text("dataset: arithmetic\nseed: 1\n")
    Path("b.yaml").write_text("extends: ./a.yaml\nseed: 2\ndataset: {name: files, path: x}\n")
    code, out, _ = llmkit("diff", "a.yaml", "b.yaml", "--command", "train/sft")
    assert code == 0
    assert "seed\n  a.yaml  1  (a.yaml:2:7)\n  b.yaml  2  (b.yaml:2:7)\n" in out
    assert "dataset.path\n  a.yaml  (not there)\n  b.yaml  x  (b.yaml:3:30)\n" in out
    code, out, _ = llmkit("diff", "a.yaml", "b.yaml", "--command", "train/sft", "--json")
    assert {"key": "dataset.size", "b": None}.items() <= next(
        one for one in json.loads(out) if one["key"] == "dataset.size"
    ).items()


def test_diff_of_run_directories_and_presets_finds_the_command(llmkit):
    for name, seed in (("first", 1), ("second", 2)):
        _, text, _ = llmkit(
            "show", "train/grpo", "--set", "dataset=arithmetic", "--set", f"seed={seed}",
            "--set", "trackers=[{name: wandb, api_key: geheim}]",
        )  # fmt: skip
        Path(name).mkdir()
        Path(name, "config.yaml").write_text(text)
    code, out, err = llmkit("diff", "first", "second")
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "seed"
    assert len(out.splitlines()) == 3
    code, out, err = llmkit("diff", "first", "first")
    assert (code, out) == (0, "")
    assert err == "No difference between first and first.\n"
    code, out, _ = llmkit("diff", "first", "gsm8k-tiny")
    assert code == 0
    assert "max_steps\n" in out


def test_diff_needs_one_command(llmkit):
    Path("a.yaml").write_text("dataset: arithmetic\n")
    code, _, err = llmkit("diff", "a.yaml", "a.yaml")
    assert code == 2
    assert "tells its command; say it with --command" in err
    code, _, err = llmkit("diff", "train/sft/arithmetic", "train/grpo/gsm8k-tiny")
    assert code == 2
    assert "only configurations of one command can be compared" in err


def test_schema_as_a_table(llmkit):
    code, out, _ = llmkit("schema", "train/grpo")
    assert code == 0
    assert "optim.learning_rate: number, at least 0, default 1.0e-05\n    Peak learning rate.\n" in out
    assert "dataset: a plugin of the kind datasets, required\n" in out
    assert "  with name: files\n  dataset.path: text or list of text, required\n" in out
    assert "  dataset.sources: list of sections, at least 1 long, required\n" in out
    assert "    dataset.sources.0.dataset: a plugin of the kind datasets, required\n" in out


def test_schema_as_json(llmkit):
    code, out, _ = llmkit("schema", "train/grpo", "--json")
    assert code == 0
    assert json.loads(out)["$id"] == "llmkit:train/grpo"


def test_unknown_command(llmkit):
    code, _, err = llmkit("show", "grpo")
    assert code == 2
    assert err.startswith("error: No configured command named 'grpo'. Did you mean 'train/grpo'?")


@pytest.mark.parametrize("command", ["show", "explain", "diff", "schema"])
def test_help_has_examples(llmkit, command):
    code, out, _ = llmkit(command, "--help")
    assert code == 0
    assert f"  llmkit config {command} " in out
