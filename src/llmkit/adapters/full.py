"""Full fine-tuning: every weight trains, and no adapter is added."""

from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.config.section import Section

if TYPE_CHECKING:
    from torch import nn


class Config(Section):
    """Nothing to choose."""


def build(config: Config) -> "Full":
    """Make the adapter."""
    return Full()


class Full:
    """Trains the model itself."""

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The model with every parameter trainable."""
        return model.requires_grad_(True)

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The model with the checkpoint's weights, bit for bit."""
        from llmkit.models.loading import load_weights

        load_weights(model, directory)
        return self.attach(model)
