"""A step's share of one process, where several work on it."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from llmkit.distributed.world import world
from llmkit.types import Batch

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
