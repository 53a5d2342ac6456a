"""Every algorithm as a short run on a small model: it learns, it resumes, and faults are told."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmkit import cli
from llmkit.config.algorithms import PREFERENCE_LOSSES
from llmkit.models.policy import Policy
from llmkit.train import loading
from llmkit.train.algorithm_presets import algorithm_names

from .conftest import Run, read_metrics

TIMINGS = ("_seconds", "_per_second", "peak_memory_bytes")
REWARDS = '''
"""Rewards that a random model can differ in."""
import math
from llmkit.config.section import Section
class Config(Section):
    kind: str = "closeness"
    """Which of them."""
def build(config):
    return {"closeness": closeness, "picky": picky, "equal": lambda rollout: 1.0, "nan": lambda rollout: math.nan}[
        config.kind]
def closeness(rollout):
    return sum(token % 7 == 3 for token in rollout.token_ids) / 100
def picky(rollout):
    """The same for every answer to half of the prompts."""
    return 0.0 if len(rollout.prompt) % 2 else closeness(rollout)
'''


def finish(*arguments: object) -> None:
    """Run a command line in this process to its successful end."""
    assert cli.run([str(argument) for argument in arguments]) == 0


def comparable(run: Path) -> list[dict[str, Any]]:
    """Metrics without what depends on the clock."""
    return [{name: value for name, value in row.items() if not name.endswith(TIMINGS)} for row in read_metrics(run)]


@pytest.fixture
def grpo(model: str, fake_package: Callable[..., Path]) -> list[object]:
    """A command line for two steps of four groups of four."""
    fake_package("playful", {"rewards": {"playful": "playful"}}, {"playful.py": REWARDS})
    problems = ["--set", "dataset={name: arithmetic, size: 60}", "--reward", "playful", "--max-length", 400]
    rollouts = ["--prompts-per-step", 4, "--group-size", 4, "--max-new-tokens", 8]
    steps = ["--max-steps", 2, "--learning-rate", "1e-3", "--set", "optim.schedule=constant"]
    return ["train", "grpo", "--model", model, *problems, *rollouts, *steps]


@pytest.fixture
def dpo(model: str, pairs: Path) -> list[object]:
    """A command line for six steps on pairs."""
    data = ["--dataset", "files", "--dataset-path", pairs, "--rows-per-step", 8]
    return ["train", "dpo", "--model", model, *data, "--max-steps", 6, "--learning-rate", "3e-3"]


class TestGRPO:
    @pytest.mark.parametrize("name", algorithm_names("train/grpo"))
    def test_every_algorithm_runs(self, name: str, grpo: list[object], tmp_path: Path):
        finish(*grpo, "--algorithm", name, "--output-dir", tmp_path / "run")
        first, second = read_metrics(tmp_path / "run")
        for row in (first, second):
            assert math.isfinite(row["loss"])
            assert row["grad_norm"] > 0
            assert row["learning_rate"] == 1e-3
            assert row["num_groups_of_one"] == 0
            assert abs(row["logprob_mismatch_k1"]) < 1e-5
        assert ("kl" in first) == (name in ("grpo", "reinforce_pp"))
        assert ("importance_weight_mean" in first) == (name == "decoupled")
        assert ("num_sampling_rounds" in first) == (name == "dapo")

    def test_without_groups_one_completion_for_each_prompt_is_enough(self, grpo: list[object], tmp_path: Path):
        one = ["--algorithm", "reinforce_pp", "--group-size", 1, "--output-dir", tmp_path / "run"]
        finish(*grpo, *one)
        assert [row["num_groups_of_one"] for row in read_metrics(tmp_path / "run")] == [4, 4]

    def test_several_updates_share_the_schedule_of_the_run(self, grpo: list[object], tmp_path: Path):
        decays = ["--set", "optim.schedule=linear", "--set", "algorithm.updates_per_step=4"]
        finish(*grpo, *decays, "--output-dir", tmp_path / "run")
        # eight updates from 1e-3 down to 0: the steps end with the fourth and the last of them
        rates = [row["learning_rate"] for row in read_metrics(tmp_path / "run")]
        assert rates == pytest.approx([1e-3 * 5 / 8, 1e-3 / 8])

    def test_a_reward_that_is_no_number_names_the_row(self, grpo: list[object], run: Run):
        error = run(*grpo, "--set", "reward.kind=nan", code=1).error
        assert "returned nan, which is not a finite number, for the completion" in error

    def test_settings_without_effect_are_told(self, grpo: list[object], run: Run):
        err = run(*grpo, "--dry-run", "--set", "algorithm.clip_high=0.28", "--set", "algorithm.average_length=9").err
        assert "warning: algorithm.clip_high=0.28 has no effect" in err
        assert "warning: algorithm.average_length=9 has no effect" in err


class TestDynamicSampling:
    @pytest.fixture
    def dynamic(self, grpo: list[object]) -> list[object]:
        return [*grpo, "--set", "reward.kind=picky", "--set", "algorithm.max_sampling_rounds=6"]

    def test_equal_groups_are_replaced_until_the_step_is_full(self, dynamic: list[object], tmp_path: Path):
        finish(*dynamic, "--output-dir", tmp_path / "run")
        rows = read_metrics(tmp_path / "run")
        assert sum(row["num_groups_dropped"] for row in rows) > 0
        for row in rows:
            path = tmp_path / "run" / "rollouts" / f"step-{row['step']:05d}.jsonl"
            rollouts = [json.loads(line) for line in path.read_text().splitlines()]
            groups: dict[int, set[float]] = {}
            for one in rollouts:
                groups.setdefault(one["group_id"], set()).add(one["reward"])
            equal = sum(len(rewards) == 1 for rewards in groups.values())
            assert row["num_groups_dropped"] == equal
            kept = len(groups) - equal
            assert kept == 4 or (0 < kept < 4 and row["num_sampling_rounds"] == 6)
            assert len({one["source"] for one in rollouts}) == len(groups), "every group has a prompt of its own"

    def test_a_resumed_run_is_the_run_that_never_stopped(self, dynamic: list[object], tmp_path: Path):
        finish(*dynamic, "--max-steps", 4, "--output-dir", tmp_path / "whole")
        finish(*dynamic, "--max-steps", 2, "--output-dir", tmp_path / "resumed")
        assert any(row["num_groups_dropped"] % 4 for row in read_metrics(tmp_path / "resumed"))
        finish("train", "grpo", "--resume", "--output-dir", tmp_path / "resumed", "--max-steps", 4)
        assert comparable(tmp_path / "resumed") == comparable(tmp_path / "whole")

    def test_when_no_group_differs_the_rounds_end_and_are_counted(self, dynamic: list[object], tmp_path: Path):
        finish(*dynamic, "--set", "reward.kind=equal", "--output-dir", tmp_path / "run")
        for row in read_metrics(tmp_path / "run"):
            assert (row["num_sampling_rounds"], row["num_groups_dropped"]) == (6, 0)
            assert (row["grad_norm"], row["num_trained_tokens"]) == (0, 0)


class TestDPO:
    @pytest.mark.parametrize("name", sorted({*PREFERENCE_LOSSES} - {"sft"}))
    def test_every_loss_learns_to_tell_the_answers_apart(self, name: str, dpo: list[object], tmp_path: Path):
        finish(*dpo, "--loss", name, "--output-dir", tmp_path / "run")
        margins = [row["rewards_margin"] for row in read_metrics(tmp_path / "run")]
        # DiscoPOP's published form pulls margins near 0 back at its own temperature.
        assert (margins[-1] > 0.01) == (name != "discopop")

    @pytest.mark.parametrize("name", algorithm_names("train/dpo"))
    def test_every_algorithm_runs(self, name: str, dpo: list[object], tmp_path: Path):
        finish(*dpo, "--algorithm", name, "--output-dir", tmp_path / "run")
        rows = read_metrics(tmp_path / "run")
        assert rows[-1]["loss"] < rows[0]["loss"]
        assert ("loss_sft" in rows[0]) == (name == "rpo")

    @pytest.mark.parametrize("free", [["--set", "algorithm.reference_free=true"], ["--loss", "sft"]])
    def test_a_run_that_compares_with_nothing_loads_no_reference_model(
        self, free: list[str], dpo: list[object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ):
        loaded: list[Any] = []
        load = loading.load_model
        monkeypatch.setattr(loading, "load_model", lambda config: loaded.append(config) or load(config))
        monkeypatch.delattr(Policy, "reference_logprobs")
        finish(*dpo, *free, "--output-dir", tmp_path / "run")
        assert len(loaded) == 1
        losses = [row["loss"] for row in read_metrics(tmp_path / "run")]
        assert losses[-1] < losses[0]

    def test_the_dry_run_counts_the_reference_only_where_there_is_one(self, dpo: list[object], run: Run):
        plain, free = (
            json.loads(run(*dpo, "--dry-run", "--json", *more).out)["weight_bytes"]
            for more in ([], ["--set", "algorithm.reference_free=true"])
        )
        assert plain == 2 * free


class TestSFT:
    @pytest.mark.parametrize("choice", ["algorithm.loss=dft", "algorithm.label_smoothing=0.1"])
    def test_the_held_out_loss_goes_down(self, choice: str, model: str, chats: Path, tmp_path: Path):
        data = ["--dataset", "files", "--dataset-path", chats, "--rows-per-step", 8]
        held_out = ["--set", f"eval_dataset={{name: files, path: {chats}}}", "--set", choice]
        line = ["train", "sft", "--model", model, *data, *held_out, "--max-steps", 20, "--learning-rate", "1e-2"]
        finish(*line, "--output-dir", tmp_path / "run")
        before, after = (row["eval_loss"] for row in read_metrics(tmp_path / "run") if "eval_loss" in row)
        # both are cross-entropy, so that of the random model is the same for both
        assert before == pytest.approx(math.log(259), rel=0.05)
        assert after < 0.9 * before
