"""What watches over a run: averages, best checkpoints, early stops, bad steps and spikes; all exact on resume."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from .conftest import Run, read_metrics

CONSTANT = ["--set", "optim.schedule=constant", "--learning-rate", "1e-3"]
HELD_OUT = ["--set", "data.validation_fraction=0.2", "--eval-every", "1", "--threads", "1"]
TIMINGS = ("_seconds", "_per_second", "peak_memory_bytes")


def comparable(run: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith(TIMINGS)} for row in read_metrics(run)]


def weights(checkpoint: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(checkpoint / "model.safetensors")


def assert_same_run(found: Path, expected: Path, step: int) -> None:
    assert comparable(found) == comparable(expected)
    one, other = (weights(run / "checkpoints" / f"step-{step}") for run in (found, expected))
    assert all(torch.equal(one[name], other[name]) for name in one | other)


def interrupted(run: Run, settings: list, whole: Path, parts: Path, steps: int, at: int) -> None:
    """The same run in one go, and in two."""
    run(*settings, "--max-steps", steps, "--output-dir", whole)
    run(*settings, "--max-steps", at, "--output-dir", parts)
    run("train", "sft", "--resume", "--output-dir", parts, "--max-steps", steps)


class TestOptimizers:
    @pytest.mark.parametrize("settings", ["optimizer=muon", "optimizer=schedule_free", "ema_decay=0.9"])
    def test_resumed_equals_uninterrupted(self, settings: str, run: Run, sft: list, tmp_path: Path):
        command = [*sft, *CONSTANT, *HELD_OUT, "--set", f"optim.{settings}"]
        interrupted(run, command, tmp_path / "whole", tmp_path / "parts", steps=4, at=2)
        # A run that ends at step 2 evaluates there, as the whole one does at every step.
        assert_same_run(tmp_path / "parts", tmp_path / "whole", 4)

    def test_a_checkpoint_may_hold_the_averaged_model(self, run: Run, sft: list, tmp_path: Path):
        command = [*sft, *CONSTANT, "--set", "optim.ema_decay=0.9", "--set", "optim.export_ema=true"]
        run(*command, "--output-dir", tmp_path / "run")
        checkpoint = tmp_path / "run" / "checkpoints" / "step-4"
        trained, averaged = weights(checkpoint), weights(checkpoint / "averaged")
        assert trained.keys() == averaged.keys()
        assert not all(torch.equal(trained[name], averaged[name]) for name in trained)
        assert (checkpoint / "averaged" / "tokenizer.json").is_file()

    def test_another_optimizer_cannot_go_on(self, run: Run, sft: list, tmp_path: Path):
        run(*sft, "--output-dir", tmp_path / "run")
        resume = ["train", "sft", "--resume", "--output-dir", tmp_path / "run", "--max-steps", 6]
        error = run(*resume, "--set", "optim.optimizer=sgd", code=2).error
        assert "belongs to optim.optimizer=adamw, and this run has optim.optimizer=sgd" in error


class TestEarlyStop:
    def settings(self, sft: list) -> list:
        never = ["--set", "eval.patience=3", "--set", "eval.min_delta=100"]
        return [*sft, *CONSTANT, *HELD_OUT, *never, "--set", "checkpoint.best_metric=eval_loss"]

    def test_it_stops_where_the_whole_run_stops(self, run: Run, sft: list, tmp_path: Path):
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        interrupted(run, self.settings(sft), whole, parts, steps=12, at=2)
        # the first evaluation is the reference, and three without improvement follow it
        assert [row["step"] for row in read_metrics(whole)] == [0, 1, 2, 3, 4]
        assert_same_run(parts, whole, 4)
        assert (whole / "checkpoints" / "best").read_text() == (parts / "checkpoints" / "best").read_text()

    def test_a_run_that_has_stopped_says_how_to_go_on(self, run: Run, sft: list, tmp_path: Path):
        out = tmp_path / "run"
        ended = run(*self.settings(sft), "--max-steps", 12, "--output-dir", out, "--json")
        assert "stopped early after step 4: eval_loss has not improved for 3 evaluations; the best was" in ended.err
        assert json.loads(ended.out)["checkpoint"] == str(out / "checkpoints" / "step-4")
        resume = ["train", "sft", "--resume", "--output-dir", out]
        assert "raise eval.patience to go on" in run(*resume, code=2).error
        run(*resume, "--set", "eval.patience=4")
        assert read_metrics(out)[-1]["step"] == 5

    def test_patience_needs_rows_to_measure_on(self, run: Run, sft: list):
        error = run(*sft, "--eval-every", 1, "--set", "eval.patience=3", code=2).error
        assert "eval.patience needs rows to measure on" in error


class TestBestCheckpoint:
    def test_it_outlives_later_ones(self, run: Run, sft: list, tmp_path: Path):
        # The rate is so high that the first evaluation is the best one.
        best = ["--set", "checkpoint.best_metric=eval_loss", "--set", "checkpoint.keep_last=1"]
        out = tmp_path / "run"
        ended = run(*sft, *HELD_OUT, *best, "--learning-rate", "0.3", "--output-dir", out, "--json")
        losses = {row["step"]: row["eval_loss"] for row in read_metrics(out) if row["step"]}
        step = min(losses, key=lambda step: losses[step])
        assert step < 4, "the test needs a run that gets worse"
        assert (out / "checkpoints" / "best").read_text() == f"step-{step}\n"
        assert sorted(path.name for path in (out / "checkpoints").iterdir()) == ["best", f"step-{step}", "step-4"]
        assert json.loads(ended.out)["best_checkpoint"] == str(out / "checkpoints" / f"step-{step}")

    def test_a_metric_that_is_not_measured_is_told_of_before_training(self, run: Run, sft: list, tmp_path: Path):
        out = tmp_path / "run"
        wrong = ["--set", "checkpoint.best_metric=eval_lose", "--set", "checkpoint.best_mode=min"]
        error = run(*sft, *HELD_OUT, *wrong, "--output-dir", out, code=2).error
        assert "checkpoint.best_metric=eval_lose: evaluations of this run measure eval_loss. Did you mean" in error
        assert read_metrics(out) == []


class TestBadNumbers:
    def test_a_bad_loss_names_the_rows_of_its_micro_batch(self, run: Run, sft: list, chats: Path, tmp_path: Path):
        ended = run(*sft, "--learning-rate", "1e30", "--output-dir", tmp_path / "run", code=1)
        assert f"in the micro-batch of rows {chats}:" in ended.error
        assert "optim.on_nonfinite=skip" in ended.error

    def test_bad_steps_are_left_out_when_asked(self, run: Run, sft: list, tmp_path: Path):
        out = tmp_path / "run"
        ended = run(*sft, "--learning-rate", "1e30", "--set", "optim.on_nonfinite=skip", "--output-dir", out)
        assert [row["num_steps_skipped"] for row in read_metrics(out)] == [0, 1, 2, 3]
        assert "warning: step 2 was left out: the gradient" in ended.err

    def test_a_loss_that_jumps_is_written_down_with_its_rows(self, run: Run, sft: list, chats: Path, tmp_path: Path):
        out = tmp_path / "run"
        run(*sft, "--max-steps", 20, "--set", "optim.spike_factor=1.0001", "--output-dir", out)
        spikes = [json.loads(line) for line in (out / "spikes.jsonl").read_text().splitlines()]
        losses = {row["step"]: row["loss"] for row in read_metrics(out)}
        assert spikes
        for spike in spikes:
            assert spike["loss"] == losses[spike["step"]]
            assert len(spike["rows"]) == 2
            assert all(row.startswith(f"{chats}:") for row in spike["rows"])
