"""How a step's groups are drawn, and held-out prompts answered, in reinforcement learning."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Protocol

from llmkit import plugins
from llmkit.config.runs import GRPORun
from llmkit.engines.inference.contract import Demand, EngineContext
from llmkit.models.policy import Policy
from llmkit.train.inputs import Inputs
from llmkit.train.rollout_maker import RolloutMaker, open_rollout_maker
from llmkit.types import Record, Rollout

SCRIPTED = "echo"
"""The engine that draws nothing."""


class Prompts(Protocol):
    """What prompts are drawn from."""

    def take(self, count: int) -> list[Record]:
        """The next `count` prompts."""
        ...


@dataclass
class Drawn:
    """The groups of a step.

    Attributes:
        rollouts: everything that was sampled, scored.
        kept: what there is to train on; rollouts whose reward failed are not.
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
    """What makes rollouts, told what the run wants of it."""

    run: GRPORun
    maker: RolloutMaker

    async def draw(self, prompts: Prompts, step: int) -> Drawn:
        """The scored groups of a step.

        With several sampling rounds (DAPO, arXiv:2503.14476, equation 11), groups whose rewards are all equal are
        dropped, since they have no gradient, and as many prompts are drawn in their place. A step stays short when the
        rounds are over; if not one group differs, nothing is dropped.
        """
        drawn = Drawn()
        size, most = self.run.batch.prompts_per_step, self.run.algorithm.max_sampling_rounds
        while drawn.num_rounds < most and (missing := size - num_groups(drawn.kept)):
            rollouts = await self._round(prompts.take(missing), step, drawn)
            scored = [rollout for rollout in rollouts if rollout.reward is not None]
            drawn.kept += different(scored) if most > 1 else scored
        drawn.kept = drawn.kept or [rollout for rollout in drawn.rollouts if rollout.reward is not None]
        return drawn

    async def held_out(self, records: Sequence[Record]) -> list[Rollout]:
        """One scored rollout for each record; the same random numbers every time, so that evaluations compare."""
        rollouts, _ = await self.make(records, 1, self.run.eval.temperature, "eval")
        return rollouts

    async def make(
        self, records: Sequence[Record], size: int, temperature: float, name: str
    ) -> tuple[list[Rollout], dict[str, float]]:
        """Scored groups of all records, and the seconds that they took.

        Args:
            name: of the draw, with which the run's seed fixes what is drawn.
        """
        return await self.maker.make(
            records,
            size,
            max_new_tokens=self.run.sampling.max_new_tokens,
            temperature=temperature,
            seed=f"{self.run.seed}:{name}",
        )

    async def load_weights(self, version: int) -> None:
        """Let the engine have the policy's present weights; all processes take part."""
        await self.maker.load_weights(version)

    async def _round(self, records: Sequence[Record], step: int, drawn: Drawn) -> list[Rollout]:
        """A scored group for each record, added to what was drawn before."""
        seed = f"train:{step}:{drawn.num_rounds}" if drawn.num_rounds else f"train:{step}"
        group_size, temperature = self.run.algorithm.group_size, self.run.sampling.temperature
        rollouts, seconds = await self.make(records, group_size, temperature, seed)
        first = num_groups(drawn.rollouts)
        for rollout in rollouts:
            rollout.group_id += first
        for part, passed in seconds.items():
            drawn.seconds[part] += passed
        drawn.rollouts += rollouts
        drawn.num_rounds += 1
        return rollouts


@contextmanager
def open_sampler(
    run: GRPORun,
    policy: Policy,
    inputs: Inputs,
    loop: asyncio.Runner,
    refresh: Callable[[], None] | None = None,
    *,
    directory: Path | None = None,
    script: Sequence[int] | None = None,
) -> Iterator[Sampler]:
    """Start engine, workflow and reward; close the engine however the run ends.

    Args:
        policy: to sample from.
        refresh: see `RolloutMaker`.
        directory: of the run, for what servers write.
        script: what every completion is, in the place of what the run's engine would draw.
    """
    context = EngineContext(run.model, run.device, policy, demand=demand_of(run, inputs), directory=directory)
    engine, config = run.engine.name, run.engine
    if script is not None:
        engine, config = SCRIPTED, plugins.load("engines", SCRIPTED).Config(script=(tuple(script),))
    with open_rollout_maker(
        loop,
        inputs.codec,
        context,
        engine=engine,
        config=config,
        workflow=run.workflow,
        reward=run.reward,
        scoring=run.scoring,
        refresh=refresh,
    ) as maker:
        yield Sampler(run, maker)


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
