"""`llmkit train dpo` with reference log-probabilities that are computed before training."""

from pathlib import Path

import pytest

from llmkit.models.policy import Policy

from .conftest import Run, read_metrics

PRECOMPUTE = ("--set", "algorithm.precompute_reference=true")


@pytest.fixture
def dpo(model: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """A command line for four steps on pairs, with a cache of its own."""
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    data = ["--dataset", "files", "--dataset-path", pairs, "--rows-per-step", 4]
    held_out = ["--set", "data.validation_fraction=0.2"]
    return ["train", "dpo", "--model", model, *data, *held_out, "--max-steps", 4, "--learning-rate", "3e-3"]


@pytest.mark.parametrize("adapter", ["full", "lora"])
def test_it_trains_as_with_the_reference_at_hand(adapter: str, dpo: list[object], run: Run, tmp_path: Path):
    run(*dpo, "--adapter", adapter, "--output-dir", "plain")
    run(*dpo, "--adapter", adapter, *PRECOMPUTE, "--output-dir", "precomputed")
    plain, precomputed = read_metrics(tmp_path / "plain"), read_metrics(tmp_path / "precomputed")
    for name in ("loss", "eval_loss", "rewards_margin"):
        expected = [row[name] for row in plain if name in row]
        assert expected
        assert [row[name] for row in precomputed if name in row] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_the_reference_is_asked_once_and_let_go(
    dpo: list[object], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[bool] = []
    reference_logprobs, logprobs = Policy.reference_logprobs, Policy.logprobs

    def count(self: Policy, *args: object, **options: object) -> object:
        if self.precomputed is None:
            asked.append(self.reference is not None)
        return reference_logprobs(self, *args, **options)  # type: ignore[arg-type]

    def check(self: Policy, *args: object, **options: object) -> object:
        assert self.reference is None
        return logprobs(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Policy, "reference_logprobs", count)
    monkeypatch.setattr(Policy, "logprobs", check)
    run(*dpo, *PRECOMPUTE, "--output-dir", "first")
    assert asked
    assert all(asked)
    asked.clear()
    run(*dpo, *PRECOMPUTE, "--output-dir", "second")
    assert not asked
    first, second = read_metrics(tmp_path / "first"), read_metrics(tmp_path / "second")
    assert [row.get("loss") for row in first] == [row.get("loss") for row in second]


def test_a_stream_cannot_be_looked_through_before_training(dpo: list[object], run: Run):
    error = run(
        *dpo, *PRECOMPUTE, "--set", "dataset.streaming=true", "--set", "~data.validation_fraction", code=2
    ).error
    assert "algorithm.precompute_reference=true" in error
    assert "dataset.streaming=true" in error


def test_settings_without_effect_are_named(dpo: list[object], run: Run):
    free = run(*dpo, *PRECOMPUTE, "--set", "algorithm.reference_free=true", "--max-steps", 1).err
    assert "algorithm.precompute_reference=True has no effect" in free
    kept = run(*dpo, "--set", "device.offload_activations=true", "--max-steps", 1).err
    assert "device.offload_activations has no effect on cpu" in kept
