"""A penalty from 0 to -1 for completions that are too long, or not as long as wanted."""

from typing import Self

from pydantic import Field, model_validator

from llmkit.config.section import Section
from llmkit.types import Rollout

IN_PROCESS = True


class Config(Section):
    """Either `max_tokens` or `target_tokens`. Lengths are sampled tokens, of all turns together."""

    max_tokens: int | None = Field(None, ge=1)
    """Length from which on the penalty is -1 (soft overlong punishment, arXiv:2503.14476, equation 13)."""
    buffer_tokens: int = Field(128, ge=1)
    """Tokens before `max_tokens` over which the penalty grows from 0."""
    target_tokens: int | None = Field(None, ge=1)
    """Length without a penalty."""
    tolerance_tokens: int = Field(128, ge=1)
    """Distance from `target_tokens` at which the penalty is -1; it grows from 0 in proportion."""

    @model_validator(mode="after")
    def _one_of_the_two(self) -> Self:
        if (self.max_tokens is None) == (self.target_tokens is None):
            raise ValueError("give either `max_tokens` or `target_tokens`")
        if self.max_tokens is not None and self.buffer_tokens > self.max_tokens:
            raise ValueError(f"buffer_tokens ({self.buffer_tokens}) is more than max_tokens ({self.max_tokens})")
        return self


def build(config: Config) -> "Length":
    """Make the reward."""
    return Length(config)


class Length:
    """The reward: a pure function of the number of sampled tokens."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def __call__(self, rollout: Rollout) -> float:
        """From -1 to 0."""
        config, length = self._config, rollout.completion_length
        if config.max_tokens is not None:
            excess = (length - (config.max_tokens - config.buffer_tokens)) / config.buffer_tokens
        else:
            assert config.target_tokens is not None
            excess = abs(length - config.target_tokens) / config.tolerance_tokens
        return 0.0 - min(1.0, max(0.0, excess))
