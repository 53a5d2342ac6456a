"""The rate at which a server no longer keeps up."""

from collections.abc import Callable, Mapping
from typing import Any

ENOUGH = 0.9
"""Share of the requests that must come in time for a rate to count as kept up with."""
MOST_STEPS = 12
HALVINGS = 2

MeasureAt = Callable[[float], Mapping[str, Any]]


def saturation(measure_at: MeasureAt, first_rate: float) -> float | None:
    """The highest rate that a server was seen to keep up with.

    Doubles the rate until it does not, and halves the last step twice.

    Args:
        measure_at: the figures at a rate.
        first_rate: requests a second to begin with.

    Returns: requests a second; None when it does not keep up with the first rate.
    """
    good, rate = None, first_rate
    for _ in range(MOST_STEPS):
        if not keeps_up(measure_at(rate)):
            break
        good, rate = rate, 2 * rate
    else:
        return good
    if good is None:
        return None
    for _ in range(HALVINGS):
        middle = (good + rate) / 2
        good, rate = (middle, rate) if keeps_up(measure_at(middle)) else (good, middle)
    return good


def keeps_up(figures: Mapping[str, Any]) -> bool:
    """Whether enough requests kept to the goals, or where there are none, ended as fast as they came."""
    if "goodput_share" in figures:
        return figures["goodput_share"] >= ENOUGH
    return figures["num_failed"] == 0 and figures["keeping_up"] >= ENOUGH
