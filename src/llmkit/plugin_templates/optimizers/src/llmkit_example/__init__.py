"""Moves every weight by the learning rate, against the sign of its smoothed gradient."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup


class Config(Section):
    """How gradients are smoothed."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the former gradients in the smoothed one."""


def build(config: Config, groups: "Sequence[ParameterGroup]") -> "Optimizer":
    """Make the optimizer."""
    from llmkit_example.sign_descent import SignDescent

    return SignDescent([group.as_settings() for group in groups], momentum=config.momentum)
