"""Which curves a report shows, and what they show: names, series, smoothing, ticks."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.train.summary import label, number

Point = tuple[float, float]
Metrics = Mapping[str, Any]

CHARTS = (
    ("Reward", ("reward_mean", "eval_reward_mean")),
    ("Accuracy", ("accuracy", "rewards_accuracy", "eval_accuracy")),
    ("Loss", ("loss", "eval_loss")),
    ("Implicit rewards", ("rewards_chosen", "rewards_rejected")),
    ("Margin of implicit rewards", ("rewards_margin", "eval_margin")),
    ("Completion length, tokens", ("completion_length_mean", "eval_completion_length_mean")),
    ("Truncated completions, share", ("truncated_fraction", "eval_truncated_fraction")),
    ("Entropy, nats", ("entropy",)),
    ("KL divergence from the reference model, nats", ("kl",)),
    ("Clipped ratios, share", ("ratio_clipped_fraction",)),
    ("Trainer against engine: KL divergence, nats", ("logprob_mismatch_kl", "logprob_mismatch_k1")),
    (
        "Trainer against engine: ratio of probabilities",
        ("logprob_mismatch_ratio_p50", "logprob_mismatch_ratio_p01", "logprob_mismatch_ratio_p99"),
    ),
    ("Trainer against engine: largest ratio of probabilities", ("logprob_mismatch_ratio_max",)),
    (
        "Trainer against engine: difference of probabilities",
        ("logprob_mismatch_abs_p_mean", "logprob_mismatch_abs_p_max"),
    ),
    ("Importance weights, mean", ("importance_weight_mean",)),
    ("Importance weights at a bound, share", ("importance_clipped_fraction",)),
    ("Deviation of rewards", ("reward_std",)),
    ("Learning rate", ("learning_rate",)),
    ("Gradient norm", ("grad_norm",)),
    ("Tokens per second", ("tokens_per_second",)),
    ("Peak memory, GB", ("peak_memory_bytes",)),
    ("Staleness, steps", ("staleness_max",)),
)
UNCHARTED = ("step", "num_tokens", "num_trained_tokens")
UNITS = {"peak_memory_bytes": 1e9}
"""What values are divided by."""
SMOOTH_FROM = 40
"""Curves with at least this many points get a smoothed line."""


@dataclass(frozen=True)
class Series:
    """One metric over steps.

    Attributes:
        label: its name for people.
        points: (step, value), steps rising, values finite.
        held_out: whether it was measured on rows that the run does not train on.
    """

    label: str
    points: tuple[Point, ...]
    held_out: bool


@dataclass(frozen=True)
class Chart:
    """Metrics that share an axis."""

    title: str
    series: tuple[Series, ...]


def charts(rows: Sequence[Metrics]) -> list[Chart]:
    """A chart for every metric that was measured: those of `CHARTS` in their order, then any other by name.

    Counts that stayed 0, of rows that were left out for example, need no chart.
    """
    present = dict.fromkeys(name for row in rows for name in row if number(row, name) is not None)
    wanted = [(title, [name for name in names if name in present]) for title, names in CHARTS]
    placed = {name for _, names in CHARTS for name in names}
    for name in present:
        plain = name.removeprefix("eval_")
        counts_nothing = name.startswith("num_") and not any(number(row, name) for row in rows)
        if name not in placed and plain not in UNCHARTED and not name.endswith("_seconds") and not counts_nothing:
            pair = [other for other in (plain, f"eval_{plain}") if other in present]
            wanted.append((label(plain).capitalize(), pair))
            placed.update(pair)
    return [Chart(title, tuple(series(rows, name) for name in names)) for title, names in wanted if names]


def series(rows: Sequence[Metrics], name: str) -> Series:
    """The finite values of one metric over steps."""
    unit = UNITS.get(name, 1.0)
    points = tuple((float(row["step"]), value / unit) for row in rows if (value := number(row, name)) is not None)
    return Series(label(name).removesuffix(" bytes"), points, name.startswith("eval_"))


def smooth(points: Sequence[Point]) -> list[Point]:
    """Mean over a twentieth of the points around each; nearer to an end over fewer, so that a slope stays in place."""
    reach = len(points) // 40
    sums = [0.0, *itertools.accumulate(value for _, value in points)]
    smoothed: list[Point] = []
    for index, (step, _) in enumerate(points):
        side = min(reach, index, len(points) - 1 - index)
        smoothed.append((step, (sums[index + side + 1] - sums[index - side]) / (2 * side + 1)))
    return smoothed


def thin_out(points: Sequence[Point], most: int = 300) -> list[Point]:
    """At most about `most` points: of each stretch its lowest and its highest, so that no spike is lost."""
    if len(points) <= most:
        return list(points)
    width = math.ceil(2 * len(points) / most)
    thinned: list[Point] = []
    for start in range(0, len(points), width):
        stretch = points[start : start + width]
        low = min(stretch, key=lambda point: point[1])
        high = max(stretch, key=lambda point: point[1])
        thinned.extend(sorted({low, high}))
    return thinned


def value_range(chart: Chart) -> tuple[float, float]:
    """Lowest and highest value of the axis: all values with a little air, from 0 where that wastes little space."""
    values = [value for series in chart.series for _, value in series.points]
    low, high = min(values), max(values)
    if low == high == 0:
        return 0.0, 1.0
    if low == high:
        air = abs(low) * 0.1 or 1.0
        return low - air, high + air
    air = (high - low) * 0.06
    return (0.0 if 0 <= low < 0.4 * high else low - air), high + air


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers from `low` to `high`."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12 - math.floor(math.log10(step))) for index in range(first, last + 1)]
