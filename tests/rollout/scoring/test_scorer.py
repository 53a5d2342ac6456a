import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import PluginSection
from llmkit.config.sending import section_of
from llmkit.errors import ConfigError, RewardError
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout
from llmkit.types import Rollout

REWARDS = """
import os
import sys
import time


def length(rollout, scale=1.0):
    return scale * len(rollout.completion)


def hostile(rollout):
    match rollout.completion:
        case "loops":
            while True:
                pass
        case "sleeps":
            time.sleep(3600)
        case "exits":
            os._exit(7)
        case "leaves":
            sys.exit("done")
        case "crashes":
            import ctypes
            ctypes.string_at(0)
        case "eats":
            return len(bytearray(1 << 40))
        case "raises":
            raise KeyError("solution")
        case "lies":
            return float("nan")
        case "prints":
            print("noise" * 1000)
    return 1.0


async def slow_length(rollout):
    import asyncio
    await asyncio.sleep(0.01)
    return len(rollout.completion)


counted = 0


async def lingering(rollout):
    import asyncio

    async def count():
        global counted
        while True:
            await asyncio.sleep(0)
            counted += 1

    found = counted
    task = asyncio.create_task(count())
    await asyncio.sleep(0)
    return found


def child(rollout):
    return os.getpid()
"""


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rewards") / "my_rewards.py"
    path.write_text(REWARDS)
    return path


def section(name: str, **options: Any) -> PluginSection:
    return section_of("rewards", {"name": name, **options})


def hostile(rewards: Path) -> PluginSection:
    return section("function", function=f"{rewards}:hostile")


def score(reward: Any, rollouts: Sequence[Rollout], **options: Any) -> Sequence[Rollout]:
    async def scored() -> None:
        scorer = Scorer(reward, ScoringConfig.model_validate(options))
        try:
            await scorer.start()
            await scorer.score_all(rollouts)
        finally:
            await scorer.close()

    asyncio.run(scored())
    return rollouts


class TestValues:
    @pytest.mark.parametrize("name", ["length", "slow_length"])
    def test_a_function_of_ones_own_scores_every_rollout_in_its_place(self, rewards: Path, name: str):
        scored = score(section("function", function=f"{rewards}:{name}"), [rollout("a" * size) for size in range(20)])
        assert [one.reward for one in scored] == [float(size) for size in range(20)]
        assert scored[3].rewards == {"function": 3.0}

    def test_options_reach_the_function(self, rewards: Path):
        reward = section("function", function=f"{rewards}:length", options={"scale": 0.5})
        assert score(reward, [rollout("abcd")])[0].reward == 2.0

    def test_children_are_other_processes_and_stay(self, rewards: Path):
        scored = score(section("function", function=f"{rewards}:child"), [rollout("a")] * 8, num_workers=1)
        assert len({one.reward for one in scored}) == 1
        assert scored[0].reward != os.getpid()

    def test_what_a_reward_leaves_running_ends_with_its_rollout(self, rewards: Path):
        rollouts = [rollout("a"), rollout("b"), rollout("c")]
        scored = score(section("function", function=f"{rewards}:lingering"), rollouts, num_workers=1)
        assert [one.reward for one in scored] == [0.0, 0.0, 0.0]

    def test_what_is_certain_needs_no_child(self, monkeypatch: pytest.MonkeyPatch):
        async def never(*args: Any) -> None:
            raise AssertionError("a child was started")

        monkeypatch.setattr("llmkit.rollout.scoring.children.Children._new", never)
        assert [one.reward for one in score(section("gsm8k"), [rollout("#### 7"), rollout("#### 8")])] == [1.0, 0.0]

    def test_a_formula_is_compared_in_a_child(self):
        answers = [rollout(r"\boxed{\frac{\sqrt{4}}{2}}", "1"), rollout(r"\boxed{\sqrt{5}}", "1")]
        assert [one.reward for one in score(section("gsm8k"), answers)] == [1.0, 0.0]


class TestFailures:
    @pytest.mark.parametrize(
        ("completion", "error"),
        [
            ("exits", "ended its process with exit code 7"),
            ("leaves", "raised SystemExit: done"),
            ("crashes", "ended its process by SIGSEGV"),
            ("eats", "raised MemoryError"),
            ("raises", "raised KeyError: 'solution'"),
            ("lies", "returned nan, which is not a finite number"),
        ],
    )
    def test_a_reward_that_fails_costs_one_rollout(self, rewards: Path, completion: str, error: str):
        scored = score(
            hostile(rewards), [rollout("a"), rollout(completion), rollout("b")], num_workers=1, max_error_fraction=0.5
        )
        assert [one.reward for one in scored] == [1.0, None, 1.0]
        message = scored[1].reward_error
        assert message is not None
        assert message.startswith("rows.jsonl:1: the reward 'function' " + error)
        assert message.endswith(f"for the completion '{completion}'")

    @pytest.mark.parametrize("completion", ["loops", "sleeps"])
    def test_one_that_takes_too_long_is_killed(self, rewards: Path, completion: str):
        scored = score(
            hostile(rewards), [rollout(completion), rollout("a")], timeout_seconds=1.0, max_error_fraction=0.5
        )
        assert [one.reward for one in scored] == [None, 1.0]
        assert "took longer than 1 s (scoring.timeout_seconds)" in (scored[0].reward_error or "")

    def test_a_timeout_may_be_given_a_value(self, rewards: Path):
        scored = score(hostile(rewards), [rollout("sleeps")], timeout_seconds=0.5, timeout_reward=-1.0)
        assert (scored[0].reward, scored[0].reward_error) == (-1.0, None)

    def test_more_errors_than_allowed_stop_the_run_with_the_first(self, rewards: Path):
        rollouts = [rollout("a"), rollout("raises"), rollout("raises"), rollout("b")]
        with pytest.raises(RewardError, match=r"raised KeyError.*\(2 of 4 rollouts could not be scored, more than"):
            score(hostile(rewards), rollouts, max_error_fraction=0.3)
        assert score(hostile(rewards), rollouts, max_error_fraction=0.5)[0].reward == 1.0

    def test_not_one_reward_at_all_stops_the_run_whatever_is_allowed(self, rewards: Path):
        with pytest.raises(RewardError, match="not one of 1 rollouts"):
            score(hostile(rewards), [rollout("raises")], max_error_fraction=1.0)

    def test_what_a_reward_prints_disturbs_nothing(self, rewards: Path, capfd: pytest.CaptureFixture[str]):
        assert score(hostile(rewards), [rollout("prints")])[0].reward == 1.0
        out, err = capfd.readouterr()
        assert out == ""
        assert "noise" in err

    def test_a_function_that_is_not_there_is_told_before_anything_is_scored(self, rewards: Path):
        with pytest.raises(ConfigError, match=r"has no function 'lenght'; it has .*length"):
            score(section("function", function=f"{rewards}:lenght"), [])
        with pytest.raises(ConfigError, match="there is no file"):
            score(section("function", function="nowhere.py:length"), [])


class TestEnds:
    def test_closing_ends_the_children(self, rewards: Path):
        scored = score(section("function", function=f"{rewards}:child"), [rollout("a")])
        assert not _exists(int(scored[0].reward or 0))

    def test_children_die_with_a_run_that_is_killed(self, rewards: Path, tmp_path: Path):
        script = RUN.format(place=f"{rewards}:child", pid=str(tmp_path / "pid"))
        run = subprocess.Popen([sys.executable, "-c", script])
        try:
            wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            child = int(float((tmp_path / "pid").read_text()))
            assert _exists(child)
        finally:
            run.kill()
            run.wait()
        wait_for(lambda: not _exists(child))


RUN = """
import asyncio, os
from llmkit.config.scoring import ScoringConfig
from llmkit.config.sending import section_of
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.testing.samples import rollout

async def main():
    one = rollout("a")
    scorer = Scorer(section_of("rewards", {{"name": "function", "function": {place!r}}}), ScoringConfig())
    await scorer.score_all([one])
    with open({pid!r} + ".new", "w") as file:
        file.write(str(one.reward))
    os.replace({pid!r} + ".new", {pid!r})
    await asyncio.sleep(3600)

asyncio.run(main())
"""


def wait_for(condition: Callable[[], Any]) -> None:
    """Until it holds; a minute is for a busy machine."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited for a minute"
        time.sleep(0.02)


def _exists(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False


class TestSums:
    def test_weights_and_names(self, rewards: Path):
        reward = section(
            "sum",
            rewards=[
                {"reward": "gsm8k", "weight": 2.0},
                {"reward": {"name": "function", "function": f"{rewards}:length"}, "weight": -0.1, "label": "size"},
            ],
        )
        right, wrong = score(reward, [rollout("#### 7"), rollout("#### 89")])
        assert right.rewards == {"gsm8k": 1.0, "size": 6.0}
        assert (right.reward, wrong.reward) == pytest.approx((1.4, -0.7))

    def test_each_may_be_standardized_within_its_group(self, rewards: Path):
        reward = section(
            "sum",
            normalize=True,
            rewards=[
                {"reward": {"name": "function", "function": f"{rewards}:length"}, "label": "size"},
                {"reward": "gsm8k", "weight": 3.0},
            ],
        )
        rollouts = [rollout("#### 7"), rollout("#### 7777"), rollout("#### 7"), rollout("#### 7")]
        for index, one in enumerate(rollouts):
            one.group_id = index // 2
        # group 0: lengths 6 and 9 are -1 and 1 deviation from their mean, rewards 1 and 0 are 1 and -1; group 1: equal
        score(reward, rollouts)
        assert [one.reward for one in rollouts] == pytest.approx([2.0, -2.0, 0.0, 0.0], abs=1e-4)
        assert rollouts[0].rewards == {"size": 6.0, "gsm8k": 1.0}

    def test_lone_rollouts_are_not_standardized(self):
        reward = section("sum", normalize=True, rewards=[{"reward": "gsm8k", "weight": 3.0}])
        rollouts = [rollout("#### 7"), rollout("#### 8")]
        rollouts[1].group_id = 1
        assert [one.reward for one in score(reward, rollouts)] == [3.0, 0.0]

    def test_a_discount_multiplies_the_reward_and_not_what_is_kept_by_name(self):
        one = rollout("#### 7")
        one.discount = 0.5
        score(section("gsm8k"), [one])
        assert (one.reward, one.rewards) == (0.5, {"gsm8k": 1.0})

    def test_two_of_one_name_need_labels(self):
        with pytest.raises(ValidationError, match="2 rewards are named 'gsm8k'; give each a `label` of its own"):
            section("sum", rewards=[{"reward": "gsm8k"}, {"reward": {"name": "gsm8k", "strict": True}}])
