"""What adapter plugins promise: they choose which weights train."""

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import nn


class Adapter(Protocol):
    """Prepares a model for training. `build(config) -> Adapter` makes one."""

    def attach(self, model: "nn.Module") -> "nn.Module":
        """The model to train: the same one, or a wrapper, with `requires_grad` set on what trains and nothing else.

        Raises:
            ConfigError: the adapter does not fit this model.
        """
        ...

    def restore(self, model: "nn.Module", directory: Path) -> "nn.Module":
        """The same for a model that goes on from the checkpoint in `directory`.

        Args:
            model: the base model, as `attach` would get it.
        """
        ...
