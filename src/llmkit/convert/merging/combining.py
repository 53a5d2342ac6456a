"""Several updates of one weight as one."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from peft.utils import merge_utils
from torch import Tensor

Method = Literal["linear", "ties", "dare_linear", "dare_ties", "magnitude_prune", "svd"]
DENSE = ("linear", "svd")
"""Methods that leave nothing out, so that a density means nothing to them."""


@dataclass(frozen=True)
class Combination:
    """How updates are put together.

    Attributes:
        method: `linear` their weighted sum; `ties` keeps each one's largest values and lets the majority decide on
            signs (arXiv:2306.01708); `dare_*` keeps values by chance and scales them up (arXiv:2311.03099);
            `magnitude_prune` sums each one's largest values; `svd` is the best approximation of the sum at `rank`.
        weights: one for each adapter.
        density: share of each update's values to keep.
        rank: of the sum, for `svd`.
        seed: of what `dare_*` draws.
    """

    method: Method
    weights: tuple[float, ...]
    density: float = 0.5
    rank: int | None = None
    seed: int = 0


def combine(updates: Sequence[Tensor], weights: Sequence[float], how: Combination, name: str) -> Tensor:
    """One update from those of the adapters that have one for this weight.

    Args:
        updates: N tensors of the weight's shape, float32.
        weights: [N] of these adapters.
        how: the method and its numbers.
        name: of the weight: with the seed it decides what is drawn, whatever the order of weights.
    """
    factors = torch.tensor(weights, dtype=torch.float32)
    listed = list(updates)
    if how.method in DENSE:
        total = merge_utils.task_arithmetic(listed, factors)
        return _truncated(total, how.rank) if how.method == "svd" and how.rank is not None else total
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The density")  # a density of 1 is what was asked for
        torch.manual_seed(_seed(how.seed, name))
        return getattr(merge_utils, how.method)(listed, factors, how.density)


def _truncated(update: Tensor, rank: int) -> Tensor:
    left, values, right = torch.linalg.svd(update, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def _seed(seed: int, name: str) -> int:
    """A seed for a name, the same in every process."""
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7], "big")
