"""Timing that can be compared: warm-up first, contenders in turn, medians with their spread."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def turns(names: Sequence[Name], repeats: int) -> Iterator[Name]:
    """Who runs when: everyone once a round, and every other round backwards (A B, B A, A B).

    Whatever changes in the course of a run, such as the clock of a processor that gets warm, then meets all alike.
    """
    for index in range(repeats):
        yield from names if index % 2 == 0 else reversed(names)


def alternate(contenders: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Let contenders run in turn, after one run each that does not count.

    Args:
        contenders: each gives the seconds that one run of it took.
        repeats: runs of each that count.
    Returns: seconds of each contender's runs.
    """
    for run in contenders.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name in turns(list(contenders), repeats):
        seconds[name].append(contenders[name]())
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, least and most seconds of some runs, as metrics."""
    return {"seconds": statistics.median(seconds), "seconds_min": min(seconds), "seconds_max": max(seconds)}


def rates(seconds: Sequence[float], **amounts: int) -> dict[str, float]:
    """Amounts per second in the median run, and the spread of the runs: half their range over their median.

    Args:
        seconds: of each run.
        amounts: what one run handled, by the metric's first word: `rows=5000` gives `rows_per_second`.
    """
    median = statistics.median(seconds)
    by_name = {f"{name}_per_second": amount / median for name, amount in amounts.items()}
    return {**by_name, **summary(seconds), "spread": spread(seconds)}


def spread(seconds: Sequence[float]) -> float:
    """Half the range of the runs over their median: 0.05 reads as plus or minus 5 %."""
    return (max(seconds) - min(seconds)) / 2 / statistics.median(seconds)
