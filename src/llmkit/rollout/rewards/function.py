"""A Python function of your own: `my_rewards.py:score`, or `package.module:score`."""

from typing import Any

from pydantic import Field

from llmkit.config.section import Section
from llmkit.rollout.contract import Reward
from llmkit.rollout.user_code import load_function


class Config(Section):
    """The function takes a rollout, and `options` by name, and returns a number; it may be `async`."""

    function: str = Field(pattern=r"^.+:\w+$")
    """Where it is: `file.py:name`, the file from the working directory on, or `module:name`."""
    options: dict[str, Any] = Field({})
    """What it is given besides the rollout."""


def build(config: Config) -> Reward:
    """Load the function.

    Raises:
        ConfigError: it is not there, or its file or module cannot be loaded.
    """
    function = load_function(config.function, "reward.function")

    def reward(rollout: Any) -> Any:
        return function(rollout, **config.options)

    return reward
