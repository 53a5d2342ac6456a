"""Groups of rollouts: who belongs to which, which random numbers they get, and what one failure does to the rest."""

import asyncio
from collections.abc import Sequence

import pytest

from llmkit.engines.inference.echo import Config, EchoEngine
from llmkit.errors import EngineError
from llmkit.rollout.groups import rollout_seed, sample_groups
from llmkit.rollout.workflows.single_turn import SingleTurn
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Completion, Record, Rollout, SamplingParams

RECORDS = (record("What is 1 + 1?", "2"), record("What is 2 + 2?", "4"), record("What is 3 + 3?", "6"))
SAMPLING = SamplingParams(max_new_tokens=8, temperature=0.7, stop_token_ids=(258,))


class Listener(EchoEngine):
    """Answers with one token and remembers how it was asked."""

    def __init__(self) -> None:
        super().__init__(Config(script=((65, 258),)))
        self.asked: list[SamplingParams] = []

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        self.asked.append(sampling)
        return await super().generate(prompt_ids, sampling)


def sample(seed: str = "0:train:1", size: int = 2, engine: EchoEngine | None = None, workflow=None) -> list[Rollout]:
    return asyncio.run(
        sample_groups(
            RECORDS,
            size,
            workflow=workflow or SingleTurn(),
            engine=engine or Listener(),
            codec=tiny_codec(),
            sampling=SAMPLING,
            seed=seed,
        )
    )


class TestSampling:
    def test_each_record_gets_a_group_in_order(self):
        rollouts = sample(size=2)
        assert [rollout.group_id for rollout in rollouts] == [0, 0, 1, 1, 2, 2]
        assert [rollout.record for rollout in rollouts] == [one for one in RECORDS for _ in range(2)]
        assert all(rollout.reward is None for rollout in rollouts)

    def test_every_rollout_has_random_numbers_of_its_own_that_repeat(self):
        first, again, other = Listener(), Listener(), Listener()
        sample("0:train:1", engine=first)
        sample("0:train:1", engine=again)
        sample("0:train:2", engine=other)
        seeds = [asked.seed for asked in first.asked]
        assert len(set(seeds)) == 6
        assert seeds == [asked.seed for asked in again.asked]
        assert not set(seeds) & {asked.seed for asked in other.asked}

    def test_everything_else_of_the_sampling_is_passed_on(self):
        engine = Listener()
        sample(engine=engine)
        for asked in engine.asked:
            assert (asked.max_new_tokens, asked.temperature, asked.stop_token_ids) == (8, 0.7, (258,))

    def test_a_seed_belongs_to_a_place_and_has_64_bits(self):
        assert rollout_seed("0:eval", 1, 23) == rollout_seed("0:eval", 1, 23)
        # Run together, both places would read 123.
        assert rollout_seed("0:eval", 1, 23) != rollout_seed("0:eval", 12, 3)
        assert all(0 <= rollout_seed("s", index, 0) < 1 << 64 for index in range(100))
        assert max(rollout_seed("s", index, 0) for index in range(100)) > 1 << 62


class Failing:
    """A workflow in which one record fails; the others wait, and tell how they ended."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.cancelled: list[Record] = []

    async def run(self, record: Record, engine, codec, sampling: SamplingParams, group_id: int) -> Rollout:
        if group_id == 1:
            await asyncio.sleep(0)
            raise self.error
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(record)
            raise
        raise AssertionError("nobody sets the event")


class TestFailure:
    @pytest.mark.parametrize("error", [EngineError("the engine is on fire"), ZeroDivisionError("a bug")])
    def test_the_first_error_is_raised_as_it_is_and_the_rest_cancelled(self, error: Exception):
        workflow = Failing(error)
        with pytest.raises(type(error)) as caught:
            sample(size=1, workflow=workflow)
        assert caught.value is error
        assert sorted(one.answer or "" for one in workflow.cancelled) == ["2", "6"]

    def test_cancelling_from_outside_cancels_everything(self):
        workflow = Failing(EngineError("late"))

        async def cancelled() -> bool:
            task = asyncio.ensure_future(
                sample_groups(
                    RECORDS[:1],
                    3,
                    workflow=workflow,
                    engine=Listener(),
                    codec=tiny_codec(),
                    sampling=SAMPLING,
                    seed="s",
                )
            )
            for _ in range(3):  # until the workflows have begun
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=60)
            return task.cancelled()

        assert asyncio.run(cancelled())
        assert workflow.cancelled == [RECORDS[0]] * 3
