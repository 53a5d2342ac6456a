"""Samples to batches without padding, and batches within a budget of tokens."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from llmkit.data.packing import best_fit_decreasing
from llmkit.types import Batch, PreferencePair, Sample

T = TypeVar("T", Sample, PreferencePair, list[Sample])


def collate(samples: Sequence[Sample]) -> Batch:
    """Lay samples end to end, in the order given.

    Raises:
        ValueError: there is no sample, or one has no token.
    """
    return collate_groups([[sample] for sample in samples])


def collate_groups(groups: Sequence[Sequence[Sample]]) -> Batch:
    """Lay samples end to end, in the order given; what all samples of a group begin with is there once.

    Raises:
        ValueError: there is no sample, or one has no token.
    """
    samples = [sample for group in groups for sample in group]
    if not samples or not all(sample.token_ids for sample in samples):
        raise ValueError("collate needs at least one sample, and a token in each")
    token_ids: list[int] = []
    loss_weights: list[float] = []
    ends: list[int] = []
    prefixes: list[tuple[int, int]] = []
    positions: list[Tensor] = []
    for group in groups:
        shared, first = common_prefix(group), len(token_ids)
        for index, sample in enumerate(group):
            start = shared if index else 0
            token_ids += sample.token_ids[start:]
            # The first token of a sequence is predicted from nothing.
            loss_weights += sample.loss_weights[start:] if start else [0.0, *sample.loss_weights[1:]]
            positions.append(torch.arange(start, len(sample.token_ids)))
            prefixes.append((first, first + start) if start else (0, 0))
            ends.append(len(token_ids))
    return Batch(
        token_ids=torch.tensor(token_ids, dtype=torch.int64),
        position_ids=torch.cat(positions),
        sequence_ends=ends,
        loss_weights=torch.tensor(loss_weights, dtype=torch.float32),
        prefixes=prefixes if any(end for _, end in prefixes) else None,
        sources=[sample.source for sample in samples],
    )


def common_prefix(group: Sequence[Sample]) -> int:
    """Tokens that all samples of a group begin with, none of which carries loss; each keeps a token of its own.

    0 for a group of one.
    """
    if len(group) < 2:
        return 0
    columns = zip(*(zip(sample.token_ids, _prefix_weights(sample), strict=True) for sample in group), strict=False)
    alike = sum(1 for _ in takewhile(lambda column: column[0][1] == 0 and len(set(column)) == 1, columns))
    return min(alike, min(len(sample.token_ids) for sample in group) - 1)


def divide_group(group: Sequence[Sample], max_tokens: int) -> list[list[Sample]]:
    """Parts of a group within `max_tokens`, each with the common prefix once; a longer sample stands alone."""
    shared = common_prefix(group)
    parts: list[list[Sample]] = []
    room = 0
    for sample in group:
        own = len(sample.token_ids) - shared
        if own > room:
            parts.append([])
            room = max_tokens - shared
        parts[-1].append(sample)
        room -= own
    return parts


def num_tokens(item: Sample | PreferencePair | Sequence[Sample]) -> int:
    """Tokens of a sample, of both sides of a pair, or of a group whose common prefix is there once."""
    if isinstance(item, Sample):
        return len(item.token_ids)
    if isinstance(item, PreferencePair):
        return len(item.chosen.token_ids) + len(item.rejected.token_ids)
    return sum(len(sample.token_ids) for sample in item) - common_prefix(item) * (len(item) - 1)


def micro_batches(
    items: Sequence[T], tokens_per_micro_batch: int, length: Callable[[T], int] = num_tokens
) -> list[list[T]]:
    """Divide a step's items into few forward passes: best fit, longest first, the same for the same lengths.

    Args:
        items: samples, pairs or groups.
        tokens_per_micro_batch: most tokens of a micro-batch; an item with more stands alone.
        length: tokens of an item.
    Returns: every item exactly once; within a micro-batch, and among micro-batches by their first item, in the order
        given.
    """
    lengths = np.array([length(item) for item in items], np.int64)
    bins = best_fit_decreasing(lengths, tokens_per_micro_batch)
    return [[items[number] for number in numbers] for numbers in sorted(numbers.tolist() for numbers in bins)]


def _prefix_weights(sample: Sample) -> list[float]:
    """Loss weights; that of the first token counts for nothing."""
    return [0.0, *sample.loss_weights[1:]]
