"""Call a reward and make sure of what it returns."""

import inspect
import math
from typing import SupportsFloat

from llmkit.errors import RewardError
from llmkit.rollout.contract import Reward
from llmkit.types import Rollout

SHOWN_CHARACTERS = 80


async def score(reward: Reward, rollout: Rollout) -> float:
    """What the reward says about a rollout: a finite number.

    Args:
        reward: a plain or an `async` callable.
        rollout: a finished rollout; it is not changed.
    Raises:
        RewardError: the reward raised, or returned something else; names the reward, the row and the completion.
    """
    try:
        value = reward(rollout)
        if inspect.isawaitable(value):
            value = await value
    except RewardError:
        raise
    except Exception as error:
        # A reward is foreign code and may raise anything.
        raise RewardError(_message(reward, rollout, f"raised {type(error).__name__}: {error}")) from error
    number = _as_float(value)
    if number is None or not math.isfinite(number):
        raise RewardError(_message(reward, rollout, f"returned {value!r}, which is not a finite number"))
    return number


def _as_float(value: object) -> float | None:
    """A number of any library as a float; None for anything else, also for text that looks like one."""
    if not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _message(reward: Reward, rollout: Rollout, what: str) -> str:
    name = getattr(reward, "__name__", None) or type(reward).__name__
    start = rollout.completion[:SHOWN_CHARACTERS]
    rest = "..." if len(rollout.completion) > SHOWN_CHARACTERS else ""
    return f"{rollout.record.source}: the reward '{name}' {what}, for the completion {start + rest!r}"
