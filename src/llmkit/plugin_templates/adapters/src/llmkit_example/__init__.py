"""Trains the layer norms and biases only: a few thousand weights."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.adapters.contract import Adapter
from llmkit.config.section import Section

if TYPE_CHECKING:
    from torch import nn


class Config(Section):
    """Which small weights."""

    with_head: bool = False
    """Train the output head too."""


def build(config: Config) -> "SmallWeights":
    """Make the adapter."""
    return SmallWeights(config)


class SmallWeights(Adapter):
    """Adds nothing: it chooses which of the model's own weights train."""

    def __init__(self, config: Config) -> None:
        self._config = config

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The model, with vectors (norms, biases) trainable and matrices frozen."""
        for name, parameter in model.named_parameters():
            is_head = self._config.with_head and name.startswith("lm_head")
            parameter.requires_grad_(parameter.dim() == 1 or is_head)
        return model

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The model with the checkpoint's weights."""
        from llmkit.models.loading import load_weights

        load_weights(model, directory)
        return self.attach(model)
