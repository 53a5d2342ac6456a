"""A rehearsal of reinforcement learning: sample, score and update, on few prompts and tokens where it is slow."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

from llmkit.config.runs import GRPORun
from llmkit.data.collate import num_tokens
from llmkit.models.dropout import disable_dropout
from llmkit.train.dry_run.rehearsal import Cost
from llmkit.train.grpo_update import update
from llmkit.train.inputs import Inputs
from llmkit.train.rollout_batch import as_sample
from llmkit.train.sampler import Sampler, open_sampler
from llmkit.train.server_engines import asks_servers
from llmkit.train.session import Session
from llmkit.types import Record, Rollout

GENERATION_SECONDS = 2.0
"""Time for the completions of one prompt; longer ones are sampled in part."""
FIRST_TOKENS = 16
"""Tokens that tell how long a whole completion would take."""


class SampledSteps:
    """Steps that sample and then update."""

    def __init__(self, session: Session, sampler: Sampler, loop: asyncio.Runner) -> None:
        assert isinstance(session.run, GRPORun)
        self._session, self._sampler, self._loop = session, sampler, loop
        self._run: GRPORun = session.run
        whole = self._run.sampling.max_new_tokens
        # What servers would draw is handed out as it is, at once and at full length.
        self._longest = whole if asks_servers(self._run) else min(FIRST_TOKENS, whole)
        self._num_steps = 0

    def step(self, items: Sequence[Record]) -> Cost:
        """Sample a group for each prompt, and update as if every second completion were right."""
        whole = self._run.sampling.max_new_tokens
        run = self._limited(len(items))
        self._num_steps += 1
        self._session.policy.model.eval()
        drawn = self._loop.run(replace(self._sampler, run=run).draw(_Handed(items), self._num_steps))
        generation = sum(drawn.seconds.values())
        for number, rollout in enumerate(drawn.rollouts):
            rollout.reward = float(number % 2)
        started = time.perf_counter()
        update(self._session.engine, drawn.rollouts, run)
        training = time.perf_counter() - started
        cost = Cost(
            tokens=_num_tokens(drawn.rollouts, shared=run.batch.share_prompts),
            seconds=(generation + training) * whole / self._longest,
            untried_tokens=whole - self._longest,
        )
        if self._longest < whole:
            per_token = generation / self._longest
            self._longest = max(FIRST_TOKENS, min(whole, int(GENERATION_SECONDS / max(per_token, 1e-9))))
        return cost

    def evaluate(self, items: Sequence[Record]) -> None:
        """Sample and score held-out prompts."""
        self._session.policy.model.eval()
        self._loop.run(replace(self._sampler, run=self._limited(1)).held_out(items))

    def _limited(self, num_prompts: int) -> GRPORun:
        """The run with fewer prompts per step, and completions as long as there is time for."""
        run = self._run
        return run.model_copy(
            update={
                "batch": run.batch.model_copy(update={"prompts_per_step": num_prompts}),
                "sampling": run.sampling.model_copy(update={"max_new_tokens": self._longest}),
                "algorithm": run.algorithm.model_copy(update={"max_sampling_rounds": 1}),
            }
        )


class _Handed:
    """Prompts that are there already."""

    def __init__(self, items: Sequence[Record]) -> None:
        self._items = list(items)

    def take(self, count: int) -> list[Record]:
        return self._items[:count]


@contextmanager
def rehearse_sampling(session: Session, inputs: Inputs) -> Iterator[SampledSteps]:
    """Start what the run samples with; servers are not started, and their part is scripted."""
    run: Any = session.run
    disable_dropout(session.policy.model)
    with (
        asyncio.Runner() as loop,
        open_sampler(
            run,
            session.sampling_policy,
            inputs,
            loop,
            session.refresh_sampling,
            script=any_completion(run, inputs) if asks_servers(run) else None,
        ) as sampler,
    ):
        loop.run(sampler.load_weights(0))
        yield SampledSteps(session, sampler, loop)


def any_completion(run: GRPORun, inputs: Inputs) -> list[int]:
    """Token ids of a completion at its longest."""
    token = next(number for number in count() if number not in inputs.codec.stop_token_ids)
    return [token] * run.sampling.max_new_tokens


def _num_tokens(rollouts: Sequence[Rollout], *, shared: bool) -> int:
    """Tokens of a step's micro-batches, with the prompt of a group once where it is shared."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    if not shared:
        return sum(len(rollout.token_ids) for rollout in rollouts)
    return sum(num_tokens([as_sample(rollout) for rollout in group]) for group in groups.values())
