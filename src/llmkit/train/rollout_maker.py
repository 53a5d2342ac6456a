"""Scored rollouts from the model in training, of which each process of the run samples and scores a share."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llmkit import plugins
from llmkit.config.scoring import ScoringConfig
from llmkit.config.section import PluginSection
from llmkit.data.codec import TextCodec
from llmkit.distributed.world import world
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.rollout.groups import every_place, sample_groups
from llmkit.rollout.opening import close_workflow, open_workflow
from llmkit.rollout.scoring.scorer import Scorer
from llmkit.train.costs import Stopwatch
from llmkit.train.inputs import build
from llmkit.train.shared_servers import Load, open_engine
from llmkit.types import Record, Rollout, SamplingParams


@dataclass(frozen=True)
class RolloutMaker:
    """Engine, workflow and rewards.

    Attributes:
        load: gives the engine the policy's weights as a version.
        refresh: brings the weights that the engine samples with up to date, where the policy's own are divided; None
            where they are the policy's own.
    """

    codec: TextCodec
    engine: InferenceEngine
    workflow: Any
    scorer: Scorer
    load: Load
    refresh: Callable[[], None] | None = None

    async def load_weights(self, version: int) -> None:
        """Let the engine have the policy's present weights; all processes take part."""
        if self.refresh is not None:
            self.refresh()
        await self.load(version)

    async def make(
        self, records: Sequence[Record], group_size: int, *, max_new_tokens: int, temperature: float, seed: str
    ) -> tuple[list[Rollout], dict[str, float]]:
        """Scored groups of all records, and `generation_seconds` and `scoring_seconds`; all processes take part.

        Args:
            max_new_tokens: of a completion, at most.
            seed: the same one draws the same completions from the same weights, however many processes there are.

        A rollout whose reward failed has none; `reward_error` says why.

        Raises:
            RewardError: more rewards failed than the run allows; names the row.
        """
        together = world()
        places = every_place(len(records), group_size)
        # Weights to sample from are there as a whole in every process, so those of the tensor dimension have shares
        # too.
        start, end = (len(places) * rank // together.size for rank in (together.place.rank, together.place.rank + 1))
        sampling = SamplingParams(
            max_new_tokens=max_new_tokens, temperature=temperature, stop_token_ids=self.codec.stop_token_ids
        )
        watch = Stopwatch()
        rollouts: list[Rollout] = []
        seconds: dict[str, float] = {}
        async with together.agreeing_aside():
            rollouts = await sample_groups(
                records,
                group_size,
                workflow=self.workflow,
                engine=self.engine,
                codec=self.codec,
                sampling=sampling,
                seed=seed,
                places=places[start:end],
            )
            seconds["generation_seconds"] = watch.read()
            await self.scorer.score(rollouts)
            seconds["scoring_seconds"] = watch.read()
        everywhere = [rollout for share in await together.aside(together.gather, rollouts) for rollout in share]
        # Waiting for the slowest process is part of sampling.
        seconds["generation_seconds"] += watch.read()
        # Every process has all groups as a whole now, and comes to the same rewards, or to the same error.
        self.scorer.combine(everywhere)
        return everywhere, seconds


@contextmanager
def open_rollout_maker(
    loop: asyncio.Runner,
    codec: TextCodec,
    context: EngineContext,
    *,
    engine: str,
    config: Any = None,
    workflow: PluginSection,
    reward: PluginSection,
    scoring: ScoringConfig,
    refresh: Callable[[], None] | None,
) -> Iterator[RolloutMaker]:
    """Start engine, workflow and reward; close the engine however the run ends.

    Args:
        loop: runs the engine.
        engine: name of its plugin.
        config: of the engine; None takes its defaults.
        refresh: see `RolloutMaker`.
    """
    made, scorer = build("workflows", workflow), Scorer(reward, scoring)
    front = plugins.load("engines", engine)
    settings = front.Config() if config is None else config
    try:
        # What is wrong with a reward shows before servers take their time to start.
        loop.run(open_workflow(made, codec))
        loop.run(scorer.start())
        with open_engine(front, settings, context, loop) as (started, load):
            yield RolloutMaker(codec, started, made, scorer, load, refresh)
    finally:
        loop.run(close_workflow(made))
        loop.run(scorer.close())
