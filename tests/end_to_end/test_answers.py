"""Answers to held-out questions while a run learns from something else: scored, watched, written down."""

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run, read_metrics

NAMES = ("eval_reward_mean", "eval_accuracy", "eval_completion_length_mean")


@pytest.fixture
def question(tmp_path: Path) -> Path:
    """One question, which a model of two layers learns to answer in a few steps."""
    path = tmp_path / "question.jsonl"
    path.write_text(json.dumps({"question": "How many?", "answer": "#### 7"}) + "\n")
    return path


@pytest.fixture
def learning(model: str, question: Path) -> list[object]:
    """It learns the answer that it is asked for, and measures itself on it."""
    data = [
        "--dataset",
        "files",
        "--dataset-path",
        question,
        "--set",
        f"eval_dataset={{name: files, path: {question}}}",
    ]
    steps = [
        "--max-steps",
        40,
        "--rows-per-step",
        1,
        "--learning-rate",
        "1e-2",
        "--threads",
        1,
        "--checkpoint-every",
        0,
    ]
    answers = ["--set", "eval.generate={reward: gsm8k, max_new_tokens: 12}", "--set", "optim.schedule=constant"]
    return ["train", "sft", "--model", model, *data, *steps, *answers]


def test_the_reward_rises_and_is_written_down_and_ends_the_run(learning: list, run: Run, tmp_path: Path):
    watch = ["--set", "checkpoint.best_metric=eval_reward_mean", "--set", "eval.patience=2", "--eval-every", 5]
    ended = run(*learning, *watch, "--output-dir", "run", "--json")
    rows = [row for row in read_metrics(tmp_path / "run") if "eval_reward_mean" in row]
    rewards = {row["step"]: row["eval_reward_mean"] for row in rows}
    assert rewards[0] == 0.0
    best = next(step for step, reward in rewards.items() if reward == 1.0)
    assert list(rewards)[-1] == best + 10, "two more evaluations cannot be better than right"
    assert json.loads(ended.out)["best_checkpoint"].endswith(f"step-{best}")
    (answer,) = map(json.loads, (tmp_path / "run" / "rollouts" / f"eval-{best:05d}.jsonl").read_text().splitlines())
    assert answer["completion"].strip().endswith("7")
    assert answer["reward"] == 1.0


def test_resumed_equals_uninterrupted(learning: list, run: Run, tmp_path: Path):
    # Dropout draws from the state that answering must leave alone.
    line = [*learning, "--adapter", "lora", "--set", "adapter.dropout=0.2", "--set", "eval.generate.temperature=1"]
    line += ["--eval-every", 1, "--set", "optim.ema_decay=0.9"]
    run(*line, "--max-steps", 4, "--output-dir", "whole")
    run(*line, "--max-steps", 2, "--output-dir", "parts")
    run("train", "sft", "--resume", "--max-steps", 4, "--output-dir", "parts")

    def measured(name: str) -> list[dict[str, Any]]:
        wanted = ("step", "loss", "eval_loss", *NAMES)
        return [{key: row.get(key) for key in wanted} for row in read_metrics(tmp_path / name)]

    assert measured("parts") == measured("whole")


def test_pairs_have_an_accuracy_of_their_own(model: str, run: Run, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"Is {n} odd?", "chosen": "yes", "rejected": "no", "answer": "yes"} for n in (1, 3, 5, 7)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--dataset", "files", "--dataset-path", path, "--set", "data.validation_fraction=0.5"]
    answers = ["--set", "eval.generate={reward: gsm8k, max_new_tokens: 4, max_rows: 1}"]
    settings = ["--set", "formatter={name: preference, answer_column: answer}", "--max-steps", 1]
    run("train", "dpo", "--model", model, *data, *answers, *settings, "--output-dir", "run")
    for row in read_metrics(tmp_path / "run"):
        assert {"eval_loss", "eval_accuracy", "eval_answer_accuracy", "eval_reward_mean"} <= row.keys()
    assert len((tmp_path / "run" / "rollouts" / "eval-00001.jsonl").read_text().splitlines()) == 1


class TestRefusals:
    def test_there_must_be_held_out_rows(self, sft: list, run: Run):
        error = run(*sft, "--set", "eval.generate.reward=gsm8k", code=2).error
        assert "eval.generate.reward=gsm8k needs rows to answer: set eval_dataset, or data.validation_fraction" in error

    def test_there_must_be_room_for_a_question(self, learning: list, run: Run):
        assert "leaves no room for a question" in run(*learning, "--max-length", 8, code=2).error

    def test_a_question_that_is_too_long_names_the_setting(self, learning: list, run: Run, question: Path):
        error = run(*learning, "--max-length", 16, code=2).error
        assert f"{question}:1" in error

    def test_a_row_without_a_question_is_named(self, learning: list, run: Run, tmp_path: Path):
        path = tmp_path / "text.jsonl"
        path.write_text(json.dumps({"text": "Once upon a time"}) + "\n")
        formatter = ["--set", "formatter=text", "--dataset-path", path, "--set", f"eval_dataset.path={path}"]
        assert f"{path}:1: this row asks nothing" in run(*learning, *formatter, code=2).error

    def test_an_adapter_that_engines_cannot_use(self, learning: list, run: Run):
        error = run(*learning, "--adapter", "prompt_tuning", code=2).error
        assert "leave eval.generate.reward unset, or use adapter.name=lora" in error

    def test_settings_without_effect_are_named(self, sft: list, run: Run):
        err = run(*sft, "--max-steps", 1, "--set", "eval.generate.max_rows=3").err
        assert "eval.generate.max_rows=3 has no effect: eval.generate.reward is unset" in err
