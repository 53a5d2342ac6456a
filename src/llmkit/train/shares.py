"""A step's share of one process, where several work on it."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import torch

from llmkit.distributed.world import world
from llmkit.rollout.groups import every_place, score_all
from llmkit.train.costs import Stopwatch
from llmkit.types import Batch, Rollout

T = TypeVar("T")


def share_of(items: Sequence[T]) -> list[T]:
    """This process's share of items that every process has: every n-th."""
    together = world()
    return list(items[together.data_rank :: together.data_size])


def even_share(items: Sequence[T], size: Callable[[T], int]) -> list[T]:
    """This process's share of items that every process has: neighbours, with about as much work as the others'.

    Args:
        size: of an item's work.
    """
    together = world()
    if together.data_size == 1:
        return list(items)
    total = sum(map(size, items))
    share, before = [], 0
    for item in items:
        # An item belongs to the share that its middle lies in.
        middle = before + size(item) / 2
        if total and int(middle * together.data_size / total) == together.data_rank:
            share.append(item)
        before += size(item)
    return share if total else share_of(items)


async def share_rollouts(
    num_groups: int,
    group_size: int,
    sample: Callable[[Sequence[tuple[int, int]]], Awaitable[list[Rollout]]],
    reward: Any,
) -> tuple[list[Rollout], dict[str, float]]:
    """Scored groups, of which each process samples and scores a share, and the seconds that it took.

    Args:
        sample: makes the rollouts of these groups and members.
        reward: scores one.
    """
    together = world()
    places = every_place(num_groups, group_size)
    # Weights to sample from are there as a whole in every process, so those of the tensor dimension have shares too.
    start, end = (len(places) * rank // together.size for rank in (together.place.rank, together.place.rank + 1))
    watch = Stopwatch()
    rollouts: list[Rollout] = []
    seconds: dict[str, float] = {}
    with together.agreeing():
        rollouts = await sample(places[start:end])
        seconds["generation_seconds"] = watch.read()
        await score_all(rollouts, reward)
        seconds["scoring_seconds"] = watch.read()
    everywhere = [rollout for share in together.gather(rollouts) for rollout in share]
    # Waiting for the slowest process is part of sampling.
    seconds["generation_seconds"] += watch.read()
    return everywhere, seconds


def pad(batches: list[T], empty: Callable[[], T]) -> list[T]:
    """Micro-batches, with empty ones behind them where all processes must make equally many passes."""
    together = world()
    if not together.dimensions.is_sharded:
        return batches
    return batches + [empty() for _ in range(int(together.max(len(batches))) - len(batches))]


def empty_batch(device: torch.device) -> Batch:
    """A micro-batch of no rows: a few tokens go through the model and none of them counts."""
    tokens = torch.zeros(2, dtype=torch.int64, device=device)
    positions = torch.arange(2, device=device)
    return Batch(tokens, positions, [2], torch.zeros(2, device=device), sources=[])
