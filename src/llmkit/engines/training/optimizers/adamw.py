"""AdamW (arXiv:1711.05101), in one fused kernel on CPUs and NVIDIA GPUs."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup

if TYPE_CHECKING:
    from torch.optim import AdamW

WORKS_ON_PARTS = True
"""A weight's update depends on its own gradient and state alone."""


class Config(Section):
    """Decay rates of the moments."""

    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the two moment estimates."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of the update."""


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer."""
    return adamw(groups, config.betas, config.eps)


def adamw(groups: Sequence[ParameterGroup], betas: tuple[float, float], eps: float) -> "AdamW":
    """PyTorch's AdamW over groups, fused where there is a kernel for it."""
    from torch.optim import AdamW

    devices = {parameter.device.type for group in groups for parameter in group.parameters}
    settings = [group.as_settings() for group in groups]
    return AdamW(settings, betas=betas, eps=eps, fused=devices <= {"cpu", "cuda"})
