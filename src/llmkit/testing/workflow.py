"""What every workflow promises: a rollout whose sampled tokens are the engine's, one by one."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from llmkit.engines.inference.echo import Config as EchoConfig
from llmkit.engines.inference.echo import EchoEngine
from llmkit.rollout.contract import Workflow
from llmkit.testing.front import FrontContract
from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.types import Completion, Record, Rollout, SamplingParams

LOGPROB = -0.5
VERSION = 4
GROUP = 3


class RecordingEngine(EchoEngine):
    """Gives scripted answers, each token with log-probability `LOGPROB`, and remembers what it gave."""

    def __init__(self, answers: Sequence[str], seconds_per_token: float = 0.0) -> None:
        codec = tiny_codec()
        script = tuple(
            (*codec.conversation_ids(record(answer).messages)[-len(answer) - 2 : -2], codec.stop_token_ids[0])
            for answer in answers
        )
        super().__init__(EchoConfig(script=script, seconds_per_token=seconds_per_token))
        self.given: list[Completion] = []

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """The next answer."""
        completion = await super().generate(prompt_ids, sampling)
        self.given.append(replace(completion, logprobs=[LOGPROB] * len(completion.token_ids)))
        return self.given[-1]


class WorkflowContract(FrontContract):
    """Subclass it and set `name`.

    Attributes:
        records: records to make rollouts of.
        answers: what the engine says, in turn, the first again after the last.
    """

    kind = "workflows"
    records: ClassVar[Sequence[Record]] = (record(), record("How many legs has a cat?", "4"))
    answers: ClassVar[Sequence[str]] = ("It is 7.", "Let me see. 4", "I do not know.")

    def build(self) -> Workflow:
        """The workflow to test."""
        return self.plugin().build(self.config())

    def test_what_is_trained_is_what_was_sampled(self) -> None:
        for one in self.records:
            engine = RecordingEngine(self.answers)
            rollout = self._rollout(one, engine)
            sampled = [token for token, flag in zip(rollout.token_ids, rollout.loss_mask, strict=True) if flag]
            assert sampled, "the rollout has no sampled token"
            assert _is_made_of(sampled, engine.given), "tokens with loss_mask 1 are not the engine's, token by token"

    def test_each_token_has_a_flag_a_logprob_and_a_version(self) -> None:
        rollout = self._rollout(self.records[0], RecordingEngine(self.answers))
        assert len(rollout.loss_mask) == len(rollout.logprobs) == len(rollout.versions) == len(rollout.token_ids)
        for flag, logprob, version in zip(rollout.loss_mask, rollout.logprobs, rollout.versions, strict=True):
            assert (flag, logprob, version) in ((1, LOGPROB, VERSION), (0, 0.0, -1))

    def test_the_rollout_belongs_to_its_record_and_group(self) -> None:
        for one in self.records:
            rollout = self._rollout(one, RecordingEngine(self.answers))
            assert rollout.record is one
            assert rollout.group_id == GROUP
            assert rollout.reward is None, "rewards score rollouts; a workflow leaves them unscored"
            assert rollout.prompt
            assert isinstance(rollout.completion, str)

    def test_rollouts_made_side_by_side_do_not_mix(self) -> None:
        async def together() -> list[Rollout]:
            workflow, engine = self.build(), RecordingEngine(self.answers)
            return list(
                await asyncio.gather(
                    *(
                        workflow.run(one, engine, tiny_codec(), _sampling(), index)
                        for index, one in enumerate(self.records)
                    )
                )
            )

        rollouts = asyncio.run(together())
        assert [rollout.record for rollout in rollouts] == list(self.records)
        assert [rollout.group_id for rollout in rollouts] == list(range(len(self.records)))

    def test_it_can_be_cancelled(self) -> None:
        async def cancelled() -> bool:
            engine = RecordingEngine(self.answers, seconds_per_token=3600)
            task = asyncio.ensure_future(self.build().run(self.records[0], engine, tiny_codec(), _sampling(), GROUP))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait({task}, timeout=60)
            return task.cancelled()

        assert asyncio.run(cancelled()), "let asyncio.CancelledError pass through"

    def _rollout(self, one: Record, engine: RecordingEngine) -> Rollout:
        async def make() -> Rollout:
            await engine.load_weights(VERSION)
            return await self.build().run(one, engine, tiny_codec(), _sampling(), GROUP)

        return asyncio.run(make())


def _sampling() -> SamplingParams:
    return SamplingParams(max_new_tokens=64, stop_token_ids=tiny_codec().stop_token_ids, seed=0)


def _is_made_of(sampled: Sequence[int], given: Sequence[Completion]) -> bool:
    """Whether `sampled` is completions of `given`, whole and in order; some may be left out."""
    position = 0
    for completion in given:
        end = position + len(completion.token_ids)
        if list(sampled[position:end]) == completion.token_ids:
            position = end
    return position == len(sampled)
