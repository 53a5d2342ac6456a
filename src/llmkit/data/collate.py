"""Samples to batches without padding, and batches within a budget of tokens."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import torch

from llmkit.data.packing import best_fit_decreasing
from llmkit.types import Batch, PreferencePair, Sample

T = TypeVar("T", Sample, PreferencePair)


def collate(samples: Sequence[Sample]) -> Batch:
    """Lay samples end to end, in the order given.

    Raises:
        ValueError: there is no sample, or one has no token.
    """
    if not samples or not all(sample.token_ids for sample in samples):
        raise ValueError("collate needs at least one sample, and a token in each")
    token_ids: list[int] = []
    loss_weights: list[float] = []
    ends: list[int] = []
    for sample in samples:
        token_ids += sample.token_ids
        # The first token of a sequence is predicted from nothing.
        loss_weights += [0.0, *sample.loss_weights[1:]]
        ends.append(len(token_ids))
    positions = torch.cat([torch.arange(len(sample.token_ids)) for sample in samples])
    return Batch(
        token_ids=torch.tensor(token_ids, dtype=torch.int64),
        position_ids=positions,
        sequence_ends=ends,
        loss_weights=torch.tensor(loss_weights, dtype=torch.float32),
    )


def num_tokens(item: Sample | PreferencePair) -> int:
    """Tokens of a sample, or of both sides of a pair."""
    if isinstance(item, Sample):
        return len(item.token_ids)
    return len(item.chosen.token_ids) + len(item.rejected.token_ids)


def micro_batches(
    items: Sequence[T], tokens_per_micro_batch: int, length: Callable[[T], int] = num_tokens
) -> list[list[T]]:
    """Divide a step's items into few forward passes: best fit, longest first, the same for the same lengths.

    Args:
        items: samples or pairs.
        tokens_per_micro_batch: most tokens of a micro-batch; an item with more stands alone.
        length: tokens of an item.
    Returns: every item exactly once; within a micro-batch, and among micro-batches by their first item, in the order
        given.
    """
    lengths = np.array([length(item) for item in items], np.int64)
    bins = best_fit_decreasing(lengths, tokens_per_micro_batch)
    return [[items[number] for number in numbers] for numbers in sorted(numbers.tolist() for numbers in bins)]
