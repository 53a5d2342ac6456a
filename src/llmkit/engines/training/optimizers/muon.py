"""Muon: updates of hidden matrices are orthogonalized by Newton-Schulz steps; the rest trains by AdamW."""

from collections.abc import Sequence

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup


class Config(Section):
    """Of Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon), and of AdamW for embeddings, output head, norms
    and biases."""

    momentum: float = Field(0.95, ge=0, lt=1)
    """Decay rate of the momentum that is orthogonalized."""
    nesterov: bool = True
    """Look one update ahead (Nesterov's momentum)."""
    newton_schulz_steps: int = Field(5, ge=1, lt=100)
    """Steps of the iteration that drives the singular values of an update to about 1."""
    match_adamw: bool = True
    """Scale updates to the size of AdamW's, by 0.2·sqrt(max(rows, columns)) (arXiv:2502.16982), so that learning rates
    for AdamW fit; off scales by sqrt(max(1, rows / columns)), for rates of about 0.02."""
    adamw_learning_rate_ratio: float = Field(1.0, gt=0)
    """How many times the learning rate the parameters that AdamW trains get."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of AdamW's two moment estimates."""
    eps: float = Field(1e-8, gt=0)
    """Added to the denominator of AdamW's update."""


def build(config: Config, groups: Sequence[ParameterGroup]) -> Optimizer:
    """Make the optimizer."""
    from llmkit.engines.training.optimizers.muon_and_adamw import muon_and_adamw

    return muon_and_adamw(config, groups)
