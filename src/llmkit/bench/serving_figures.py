"""From requests to the figures that are told of a server."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmkit.bench.goals import Goals
from llmkit.bench.lengths import Ask
from llmkit.bench.load import Sent
from llmkit.bench.timing import spread
from llmkit.errors import BenchError

PERCENTILES = (50, 90, 99)
COMPARED = ("tokens_per_second", "goodput_requests_per_second", "time_to_first_token_seconds_p50",
            "inter_token_latency_seconds_p50")  # fmt: skip
"""Figures of which ratios are told."""


@dataclass(frozen=True)
class Run:
    """Requests that were sent together.

    Attributes:
        asks: what was asked for.
        sent: what came of each.
        seconds: from the first request to the last token.
        front_cpu_seconds: what llmkit's process spent meanwhile, where the model runs in others; None where not.
    """

    asks: Sequence[Ask]
    sent: Sequence[Sent]
    seconds: float
    front_cpu_seconds: float | None = None


def figures(runs: Sequence[Run], goals: Goals) -> dict[str, Any]:
    """Throughput, percentiles of what a user waits for over all runs, and how many requests kept to the goals.

    Raises:
        BenchError: no request succeeded.
    """
    sent = [one for run in runs for one in run.sent]
    good = [one for one in sent if one.error is None]
    if not good:
        raise BenchError(f"none of {len(sent)} requests succeeded: {sent[0].error}")
    seconds = sum(run.seconds for run in runs)
    num_tokens = sum(one.num_tokens for one in good)
    num_input = sum(
        len(ask.prompt) for run in runs for ask, one in zip(run.asks, run.sent, strict=True) if one.error is None
    )
    found: dict[str, Any] = {
        "seconds": seconds,
        "num_succeeded": len(good),
        "num_failed": len(sent) - len(good),
        "errors": sorted({one.error for one in sent if one.error is not None})[:5],
        "requests_per_second": len(good) / seconds,
        "tokens_per_second": num_tokens / seconds,
        "input_tokens_per_second": num_input / seconds,
        "num_output_tokens": num_tokens,
        **goals.figures(sent, seconds),
    }
    if fronts := [run.front_cpu_seconds for run in runs if run.front_cpu_seconds is not None]:
        found["front_cpu_seconds_per_1000_tokens"] = sum(fronts) / num_tokens * 1000
    if len(runs) > 1:
        found["spread"] = spread([run.seconds for run in runs])
    waits = {
        "time_to_first_token_seconds": [one.first_seconds for one in good],
        "inter_token_latency_seconds": [one.between_seconds for one in good if one.between_seconds is not None],
        "request_seconds": [one.seconds for one in good],
    }
    for name, values in waits.items():
        found |= {f"{name}_p{percent}": percentile(values, percent) for percent in PERCENTILES}
        found[f"{name}_mean"] = statistics.fmean(values) if values else None
    return found


def keeping_up(run: Run) -> float:
    """Requests that ended a second over requests that were sent a second: below 1 they pile up."""
    starts = sorted(one.start for one in run.sent)
    ends = sorted(one.times[-1] for one in run.sent if one.times)
    if len(ends) < 2 or ends[-1] == ends[0]:
        return 1.0 if len(ends) == len(starts) else 0.0
    return (len(ends) - 1) / (ends[-1] - ends[0]) * (starts[-1] - starts[0]) / (len(starts) - 1)


def percentile(values: Sequence[float], percent: float) -> float | None:
    """The value below which so many percent of them lie, between neighbours in proportion; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
