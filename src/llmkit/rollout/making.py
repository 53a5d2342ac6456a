"""Make rollouts side by side: a bounded number of prompts under way, each rollout with a deadline and its own fate."""

import asyncio
import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llmkit.data.codec import TextCodec
from llmkit.engines.inference.contract import InferenceEngine
from llmkit.errors import EngineError, LLMKitError, RewardError
from llmkit.memory import is_out_of_memory
from llmkit.rollout.contract import Workflow
from llmkit.rollout.groups import rollout_seed
from llmkit.rollout.lines import Making
from llmkit.rollout.prompts import Prompt
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.rollout.tasks import Tasks
from llmkit.types import Record, Rollout, SamplingParams

Phase = Literal["generation", "scoring"]


@dataclass(frozen=True, slots=True)
class Made:
    """A rollout that is done, its number within its group, and how it came about."""

    rollout: Rollout
    member: int
    making: Making


@dataclass(frozen=True, slots=True)
class Failed:
    """A rollout that could not be made.

    Attributes:
        phase: what failed.
        completion: what had been sampled, when scoring failed.
    """

    group_id: int
    member: int
    record: Record
    phase: Phase
    error: str
    completion: str | None = None


class Sink(Protocol):
    """Takes what is made."""

    def take(self, made: Sequence[Made]) -> None:
        """Keep rollouts."""
        ...

    def fail(self, failed: Failed) -> None:
        """Take note of a rollout that could not be made.

        Raises:
            RolloutError: there are too many of them.
        """
        ...


@dataclass(frozen=True)
class Maker:
    """What rollouts are made with.

    Attributes:
        scorer: None scores nothing.
        seed: with a rollout's place it fixes what is drawn.
        timeout_seconds: of one rollout, rewards included.
    """

    engine: InferenceEngine
    workflow: Workflow
    scorer: Scorer | None
    codec: TextCodec
    sampling: SamplingParams
    seed: str
    timeout_seconds: float

    async def make_all(self, prompts: Iterator[Prompt], concurrency: int, sink: Sink) -> None:
        """Make the rollouts of all prompts; at most `concurrency` of them are under way or read ahead.

        Raises:
            LLMKitError: rows cannot be read, rewards cannot work at all, or too many rollouts failed.
        """
        room = asyncio.Semaphore(concurrency)
        async with Tasks() as groups:
            while True:
                await room.acquire()
                # Reading and tokenizing takes time, in which the engine's results are not to wait.
                prompt = await asyncio.to_thread(next, prompts, None)
                if prompt is None:
                    return
                groups.create_task(self._make_group(prompt, sink)).add_done_callback(lambda _: room.release())

    async def _make_group(self, prompt: Prompt, sink: Sink) -> None:
        """All missing rollouts of one prompt; rewards that compare them are given when all are there."""
        together = self.scorer is not None and self.scorer.compares_groups
        keep: Callable[[Sequence[Made]], None] = sink.take
        made: list[Made] = []
        if together:
            keep = made.extend
        async with Tasks() as members:
            for member in prompt.members:
                members.create_task(self._make_one(prompt, member, keep, sink))
        if together and len(made) == len(prompt.members):
            self._combine([one.rollout for one in made])
            sink.take(made)
        elif together:
            for one in made:
                why = "another rollout of its group failed, and its rewards are compared with that one's"
                sink.fail(_failed(prompt, one.member, "scoring", why, one.rollout.completion))

    async def _make_one(self, prompt: Prompt, member: int, keep: Callable[[Sequence[Made]], None], sink: Sink) -> None:
        """One rollout, or the reason why there is none."""
        phase: Phase = "generation"
        rollout: Rollout | None = None
        try:
            async with asyncio.timeout(self.timeout_seconds):
                seed = rollout_seed(self.seed, prompt.group_id, member)
                started = time.perf_counter()
                rollout = await self._sample(prompt, seed)
                sampled = time.perf_counter()
                phase = "scoring"
                await self._score(rollout)
        except TimeoutError:
            why = f"it took longer than timeout_seconds={self.timeout_seconds:g}"
        except LLMKitError as error:
            if not isinstance(error, EngineError | RewardError) and phase == "scoring":
                raise  # a reward that cannot work at all will not work for the next one
            why = str(error)
        except Exception as error:
            # A workflow is foreign code and may raise anything.
            if is_out_of_memory(error):
                raise
            why = f"{type(error).__name__}: {error}"
        else:
            seconds = (sampled - started, time.perf_counter() - sampled)
            keep([Made(rollout, member, Making(seed, *seconds, self.sampling.wants_logprobs))])
            return
        sink.fail(_failed(prompt, member, phase, why, rollout.completion if rollout is not None else None))

    async def _sample(self, prompt: Prompt, seed: int) -> Rollout:
        sampling = dataclasses.replace(self.sampling, seed=seed)
        rollout = await self.workflow.run(prompt.record, self.engine, self.codec, sampling, prompt.group_id)
        if rollout.stop_reason == "cancelled":
            raise EngineError("the engine ended the completion before it was done")
        return rollout

    async def _score(self, rollout: Rollout) -> None:
        if self.scorer is None:
            return
        await self.scorer.score([rollout])
        if rollout.reward_error is not None:
            raise RewardError(rollout.reward_error)
        if not self.scorer.compares_groups:
            self._combine([rollout])

    def _combine(self, rollouts: Sequence[Rollout]) -> None:
        assert self.scorer is not None
        self.scorer.combine(rollouts)


def _failed(prompt: Prompt, member: int, phase: Phase, why: str, completion: str | None) -> Failed:
    return Failed(prompt.group_id, member, prompt.record, phase, why, completion)
