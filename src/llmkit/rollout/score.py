"""Call a reward and make sure of what it returns."""

import inspect
import math
from typing import SupportsFloat

from llmkit.errors import ConfigError, ModelError, PluginError, RewardError
from llmkit.rollout.contract import Reward
from llmkit.types import Rollout

SHOWN_CHARACTERS = 80


async def score(reward: Reward, rollout: Rollout, name: str | None = None) -> float:
    """What the reward says about a rollout: a finite number.

    Args:
        reward: a plain or an `async` callable.
        rollout: a finished rollout; it is not changed.
        name: of the reward, for errors; None is what Python calls it.
    Raises:
        RewardError: the reward raised, or returned something else; names the reward, the row and the completion.
        LLMKitError: it cannot work at all, since something is not installed or set wrongly.
    """
    name = name or str(getattr(reward, "__name__", type(reward).__name__))
    try:
        value = reward(rollout)
        if inspect.isawaitable(value):
            value = await value
    except (RewardError, ConfigError, ModelError, PluginError):
        raise
    except Exception as error:
        # A reward is foreign code and may raise anything.
        raise RewardError(described(name, rollout, f"raised {type(error).__name__}: {error}")) from error
    number = _as_float(value)
    if number is None or not math.isfinite(number):
        raise RewardError(described(name, rollout, f"returned {value!r}, which is not a finite number"))
    return number


def _as_float(value: object) -> float | None:
    """A number of any library as a float; None for anything else, also for text that looks like one."""
    if not isinstance(value, SupportsFloat):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def described(name: str, rollout: Rollout, what: str) -> str:
    """What happened to a reward, with the row and the completion's beginning."""
    start = rollout.completion[:SHOWN_CHARACTERS]
    rest = "..." if len(rollout.completion) > SHOWN_CHARACTERS else ""
    return f"{rollout.record.source}: the reward '{name}' {what}, for the completion {start + rest!r}"
