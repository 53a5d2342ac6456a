"""Adafactor (arXiv:1804.04235): second moments by row and column, so hardly any state."""

from collections.abc import Sequence

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup


class Config(Section):
    """How moments decay and updates are bounded. Updates are scaled by the size of the weights, so that learning rates
    are about a hundred times those of AdamW; at step t it is at most 1 / sqrt(t)."""

    beta2_decay: float = Field(-0.8, lt=0)
    """The second moments' decay rate at step t is 1 - t ** beta2_decay."""
    eps: float = Field(1e-3, gt=0)
    """Least size of weights that updates are scaled by."""
    clip_threshold: float = Field(1.0, gt=0)
    """Updates of a greater root mean square are scaled down to it."""


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer."""
    from torch.optim import Adafactor

    return Adafactor(
        [group.as_settings() for group in groups],
        beta2_decay=config.beta2_decay,
        eps=(None, config.eps),
        d=config.clip_threshold,
    )
