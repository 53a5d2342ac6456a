"""Stochastic gradient descent with momentum: one tensor of state per weight, none without momentum."""

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup

WORKS_ON_PARTS = True
"""A weight's update depends on its own gradient and state alone."""


class Config(Section):
    """Momentum. Weight decay is added to the gradient, and so goes through the momentum."""

    momentum: float = Field(0.9, ge=0, lt=1)
    """Share of the former update in the next one; 0 keeps no state."""
    nesterov: bool = False
    """Look one update ahead (Nesterov's momentum)."""

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> Self:
        if self.nesterov and not self.momentum:
            raise ValueError("optim.optimizer.nesterov=true needs optim.optimizer.momentum above 0")
        return self


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer."""
    from torch.optim import SGD

    return SGD([group.as_settings() for group in groups], momentum=config.momentum, nesterov=config.nesterov)
