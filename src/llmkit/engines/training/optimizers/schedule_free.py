"""Schedule-free AdamW (arXiv:2405.15682): an average of the weights takes the place of a falling learning rate."""

from collections.abc import Sequence

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup

WORKS_ON_PARTS = True
"""A weight's update depends on its own gradient and state alone."""


class Config(Section):
    """How weights are averaged. Goes with `optim.schedule=constant` and a warm-up; evaluations and checkpoints have the
    average, gradients are taken near it."""

    beta: float = Field(0.9, gt=0, lt=1)
    """Share of the average in the weights that gradients are taken at."""
    beta2: float = Field(0.999, gt=0, lt=1)
    """Decay rate of the second moment estimate."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the update."""


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer."""
    from llmkit.engines.training.optimizers.schedule_free_adamw import ScheduleFreeAdamW

    return ScheduleFreeAdamW(groups, beta=config.beta, beta2=config.beta2, eps=config.eps)
