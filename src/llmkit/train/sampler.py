"""Everything that turns prompts into scored rollouts, and how a step's groups are drawn."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from llmkit import plugins
from llmkit.config.runs import GRPORun
from llmkit.engines.inference.contract import Demand, EngineContext, InferenceEngine
from llmkit.models.policy import Policy
from llmkit.rollout.groups import sample_groups
from llmkit.train.inputs import Inputs, build
from llmkit.train.prompt_queue import PromptQueue
from llmkit.train.shares import share_rollouts
from llmkit.types import Record, Rollout, SamplingParams


@dataclass
class Drawn:
    """The groups of a step.

    Attributes:
        rollouts: everything that was sampled, scored.
        kept: what there is to train on.
        num_rounds: how often prompts were drawn.
        seconds: `generation_seconds` and `scoring_seconds`.
    """

    rollouts: list[Rollout] = field(default_factory=list)
    kept: list[Rollout] = field(default_factory=list)
    num_rounds: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"generation_seconds": 0.0, "scoring_seconds": 0.0})

    @property
    def num_dropped(self) -> int:
        """Groups that are not trained on."""
        return num_groups(self.rollouts) - num_groups(self.kept)


@dataclass
class Sampler:
    """Engine, workflow and reward of a run.

    Attributes:
        refresh: brings the weights that the engine samples with up to date, where the policy's own are divided; None
            where they are the policy's own.
    """

    run: GRPORun
    inputs: Inputs
    engine: InferenceEngine
    workflow: Any
    reward: Any
    refresh: Callable[[], None] | None = None

    async def draw(self, prompts: PromptQueue, step: int) -> Drawn:
        """The scored groups of a step.

        With several sampling rounds (DAPO, arXiv:2503.14476, equation 11), groups whose rewards are all equal are
        dropped, since they have no gradient, and as many prompts are drawn in their place. A step stays short when the
        rounds are over; if not one group differs, nothing is dropped.
        """
        drawn = Drawn()
        size, most = self.run.batch.prompts_per_step, self.run.algorithm.max_sampling_rounds
        while drawn.num_rounds < most and (missing := size - num_groups(drawn.kept)):
            rollouts = await self._round(prompts.take(missing), step, drawn)
            drawn.kept += different(rollouts) if most > 1 else rollouts
        drawn.kept = drawn.kept or drawn.rollouts
        return drawn

    async def held_out(self, records: Sequence[Record]) -> list[Rollout]:
        """One scored rollout for each record; the same random numbers every time, so that evaluations compare."""
        rollouts, _ = await self._share(records, 1, self.run.eval.temperature, "eval")
        return rollouts

    async def load_weights(self, version: int) -> None:
        """Let the engine have the policy's present weights; all processes take part."""
        if self.refresh is not None:
            self.refresh()
        await self.engine.load_weights(version)

    async def _round(self, records: Sequence[Record], step: int, drawn: Drawn) -> list[Rollout]:
        """A scored group for each record, added to what was drawn before."""
        seed = f"train:{step}:{drawn.num_rounds}" if drawn.num_rounds else f"train:{step}"
        group_size, temperature = self.run.algorithm.group_size, self.run.sampling.temperature
        rollouts, seconds = await self._share(records, group_size, temperature, seed)
        first = num_groups(drawn.rollouts)
        for rollout in rollouts:
            rollout.group_id += first
        for part, passed in seconds.items():
            drawn.seconds[part] += passed
        drawn.rollouts += rollouts
        drawn.num_rounds += 1
        return rollouts

    async def _share(
        self, records: Sequence[Record], size: int, temperature: float, name: str
    ) -> tuple[list[Rollout], dict[str, float]]:
        """Scored groups of all records, of which each process samples and scores a share, and the seconds it took."""

        def sample(places: Sequence[tuple[int, int]]) -> Awaitable[list[Rollout]]:
            return self._sample(records, size, temperature, name, places)

        return await share_rollouts(len(records), size, sample, self.reward)

    async def _sample(
        self, records: Sequence[Record], size: int, temperature: float, name: str, places: Sequence[tuple[int, int]]
    ) -> list[Rollout]:
        sampling = SamplingParams(
            max_new_tokens=self.run.sampling.max_new_tokens,
            temperature=temperature,
            stop_token_ids=self.inputs.codec.stop_token_ids,
        )
        return await sample_groups(
            records,
            size,
            workflow=self.workflow,
            engine=self.engine,
            codec=self.inputs.codec,
            sampling=sampling,
            seed=f"{self.run.seed}:{name}",
            places=places,
        )


@contextmanager
def open_sampler(
    run: GRPORun, policy: Policy, inputs: Inputs, loop: asyncio.Runner, refresh: Callable[[], None] | None = None
) -> Iterator[Sampler]:
    """Start engine, workflow and reward; close the engine however the run ends.

    Args:
        policy: to sample from.
        refresh: see `Sampler`.
    """
    workflow, reward = build("workflows", run.workflow), build("rewards", run.reward)
    context = EngineContext(run.model, run.device, policy, demand=demand_of(run, inputs))
    engine = plugins.load("engines", run.engine.name).build(run.engine, context)
    try:
        yield Sampler(run, inputs, engine, workflow, reward, refresh)
    finally:
        loop.run(engine.close())


def demand_of(run: GRPORun, inputs: Inputs) -> Demand:
    """The completions of a step, or of an evaluation."""
    rows = run.batch.prompts_per_step * run.algorithm.group_size
    return Demand(max(rows, run.eval.max_rows if inputs.held_out is not None else 0), inputs.max_length)


def different(rollouts: Sequence[Rollout]) -> list[Rollout]:
    """The groups in which some rewards are better than others."""
    groups = (list(group) for _, group in groupby(rollouts, key=lambda rollout: rollout.group_id))
    return [rollout for group in groups if len({one.reward for one in group}) > 1 for rollout in group]


def num_groups(rollouts: Sequence[Rollout]) -> int:
    """How many groups the rollouts are of."""
    return len({rollout.group_id for rollout in rollouts})
