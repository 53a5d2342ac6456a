"""Rollouts side by side: how many at a time, and what becomes of those that fail."""

import asyncio
from collections.abc import Iterator
from typing import ClassVar

import pytest

from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import PluginSection
from llmkit.config.sending import section_of
from llmkit.engines.inference.echo import Config, EchoEngine
from llmkit.errors import EngineError, RequestError, RolloutError
from llmkit.rollout.making import Failed, Made, Maker
from llmkit.rollout.prompts import Prompt
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.rollout.workflows.single_turn import SingleTurn
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Completion, SamplingParams

SAMPLING = SamplingParams(max_new_tokens=8, stop_token_ids=(258,))


class Kept:
    """Remembers everything; takes at most so many failures."""

    def __init__(self, most: int = 100) -> None:
        self.made: list[Made] = []
        self.failed: list[Failed] = []
        self._most = most

    def take(self, made) -> None:
        self.made += made

    def fail(self, failed: Failed) -> None:
        self.failed.append(failed)
        if len(self.failed) > self._most:
            raise RolloutError("too many")

    @property
    def places(self) -> list[tuple[int, int]]:
        return sorted((one.rollout.group_id, one.member) for one in self.made)


class Counting(EchoEngine):
    """Counts how many completions are under way; some seeds fail, in ways of their own."""

    def __init__(self, faults: dict[int, Exception | str] | None = None) -> None:
        super().__init__(Config(script=((65, 258),)))
        self.running = self.most = self.calls = 0
        self.seeds: list[int | None] = []
        self.faults = faults or {}

    async def generate(self, prompt_ids, sampling: SamplingParams) -> Completion:
        number, self.calls = self.calls, self.calls + 1
        self.seeds.append(sampling.seed)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(0.002)
            fault = self.faults.get(number)
            if isinstance(fault, Exception):
                raise fault
            if fault == "hang":
                await asyncio.Event().wait()
            if fault == "cancelled":
                return Completion([65], [0.0], [0], "cancelled")
            return await super().generate(prompt_ids, sampling)
        finally:
            self.running -= 1


def prompts(count: int, size: int, reached: list[int] | None = None) -> Iterator[Prompt]:
    for number in range(count):
        if reached is not None:
            reached.append(number)
        yield Prompt(number, record(f"What is {number} + 1?", str(number + 1)), list(range(size)))


def make(engine, count: int = 4, size: int = 2, concurrency: int = 2, kept: Kept | None = None, **more) -> Kept:
    kept = kept or Kept()
    settings = {"workflow": SingleTurn(), "scorer": None, "timeout_seconds": 60.0, **more}
    source = settings.pop("source", None) or prompts(count, size)
    maker = Maker(engine=engine, codec=tiny_codec(), sampling=SAMPLING, seed="0:rollout", **settings)
    asyncio.run(maker.make_all(source, concurrency, kept))
    return kept


def test_every_rollout_is_made_once_and_has_a_seed_of_its_place():
    engine, again = Counting(), Counting()
    kept = make(engine, count=5, size=3, concurrency=2)
    make(again, count=5, size=3, concurrency=5)
    assert kept.places == [(group, member) for group in range(5) for member in range(3)]
    assert len(set(engine.seeds)) == 15
    assert sorted(engine.seeds) == sorted(again.seeds)  # type: ignore[type-var]


def test_no_more_prompts_are_under_way_than_allowed():
    engine = Counting()
    make(engine, count=20, size=2, concurrency=3)
    assert engine.most == 6


def test_rows_are_read_as_there_is_room_and_no_sooner():
    reached: list[int] = []
    engine = Counting({0: "hang"})
    ahead: list[int] = []

    class Watching(Kept):
        def take(self, made) -> None:
            super().take(made)
            ahead.append(len(reached) - len(self.made))

    make(engine, size=1, concurrency=2, kept=Watching(), source=prompts(30, 1, reached), timeout_seconds=1.0)
    assert max(ahead) <= 2


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (EngineError("the engine is on fire"), "the engine is on fire"),
        (RequestError("the prompt is too long"), "the prompt is too long"),
        (ZeroDivisionError("a bug"), "ZeroDivisionError: a bug"),
        ("cancelled", "the engine ended the completion before it was done"),
        ("hang", "it took longer than timeout_seconds=0.5"),
    ],
)
def test_a_rollout_that_fails_is_told_and_costs_no_other(fault, told: str):
    kept = make(Counting({2: fault}), timeout_seconds=0.5)
    assert len(kept.made) == 7
    (failed,) = kept.failed
    assert (failed.phase, failed.error, failed.completion) == ("generation", told, None)
    assert (failed.group_id, failed.member) not in kept.places


def test_too_many_failures_end_everything_at_once():
    engine = Counting({number: EngineError("down") for number in range(1000)})
    with pytest.raises(RolloutError, match="too many"):
        make(engine, count=500, size=2, concurrency=2, kept=Kept(3))
    assert engine.calls <= 8
    assert engine.running == 0


def test_a_lack_of_memory_is_no_fault_of_one_rollout():
    with pytest.raises(MemoryError):
        make(Counting({1: MemoryError()}))


def scorer(**reward: object) -> Scorer:
    section: PluginSection = section_of("rewards", reward)
    return Scorer(section, ScoringConfig())


def test_a_reward_that_fails_is_told_with_what_was_sampled():
    source = iter([Prompt(0, record(answer="7"), [0]), Prompt(1, record(answer=None), [0])])
    kept = make(Counting(), scorer=scorer(name="gsm8k"), source=source)
    assert [one.rollout.rewards for one in kept.made] == [{"gsm8k": 0.0}]
    (failed,) = kept.failed
    assert (failed.group_id, failed.phase, failed.completion) == (1, "scoring", "b")
    assert "no reference answer for the reward 'gsm8k'" in failed.error


class TestRewardsThatCompareGroups:
    SUM: ClassVar = {"name": "sum", "normalize": True, "rewards": [{"reward": {"name": "gsm8k"}, "weight": 1.0}]}

    def test_groups_are_kept_whole_with_their_normalized_rewards(self):
        right, wrong = (tiny_codec().tokenizer.encode(digit)[0] for digit in "78")
        engine = EchoEngine(Config(script=((right, 258), (wrong, 258))))
        kept = make(engine, scorer=scorer(**self.SUM), source=iter([Prompt(0, record(answer="7"), list(range(8)))]))
        rewards = [one.rollout.reward or 0.0 for one in kept.made]
        verdicts = [one.rollout.rewards["gsm8k"] for one in kept.made]
        assert len(set(verdicts)) == 2, "the script gives both answers"
        assert sum(rewards) == pytest.approx(0.0, abs=1e-6)
        assert [reward > 0 for reward in rewards] == [verdict == 1 for verdict in verdicts]

    def test_with_one_missing_the_whole_group_is_to_be_made_again(self):
        kept = make(Counting({1: EngineError("down")}), count=1, size=3, scorer=scorer(**self.SUM))
        assert not kept.made
        assert sorted(failed.member for failed in kept.failed) == [0, 1, 2]
