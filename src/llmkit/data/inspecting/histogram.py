"""How lengths are distributed: figures, and a histogram with round bounds."""

import math
from dataclasses import dataclass, replace

import numpy as np

NUM_BINS = 12


@dataclass(frozen=True)
class Bin:
    """Sequences with `low` to `high` tokens, both included. The last one ends with the longest, maybe far out."""

    low: int
    high: int
    count: int

    @property
    def label(self) -> str:
        """`128-159`."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,}-{self.high:,}"


@dataclass(frozen=True)
class Lengths:
    """Tokens of sequences.

    Attributes:
        count: how many sequences.
        p95: the least length that 95 of 100 sequences do not exceed; `p99` is the same for 99.
    """

    count: int
    min: int
    median: float
    mean: float
    p95: int
    p99: int
    max: int


def summarize_lengths(lengths: np.ndarray) -> Lengths:
    """The figures of at least one length."""
    p95, p99 = np.percentile(lengths, [95, 99], method="inverted_cdf")
    return Lengths(
        count=len(lengths),
        min=int(lengths.min()),
        median=float(np.median(lengths)),
        mean=float(lengths.mean()),
        p95=int(p95),
        p99=int(p99),
        max=int(lengths.max()),
    )


def bins(lengths: np.ndarray) -> list[Bin]:
    """About `NUM_BINS` bins of one round width up to the longest 1 in 100; those are all in the last bin."""
    if not len(lengths):
        return []
    low, high = int(lengths.min()), int(lengths.max())
    usual = int(np.percentile(lengths, 99, method="inverted_cdf"))
    width = _round_up((usual - low + 1) / NUM_BINS)
    first = low - low % width
    count = (usual - first) // width + 1
    edges = first + width * np.arange(count + 1)
    counts, _ = np.histogram(np.minimum(lengths, edges[-1] - 1), edges)
    found = [Bin(int(start), int(start) + width - 1, int(number)) for start, number in zip(edges, counts, strict=False)]
    beyond = int((lengths >= edges[-1]).sum())
    if beyond:
        found[-1] = replace(found[-1], count=found[-1].count - beyond)
        found.append(Bin(int(edges[-1]), high, beyond))
    found[-1] = replace(found[-1], high=high)
    return found


def _round_up(width: float) -> int:
    """The next number of 1, 2 or 5 with zeros."""
    power = 10 ** max(0, math.floor(math.log10(max(width, 1))))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= width)
