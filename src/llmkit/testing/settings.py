"""Optimizer settings as a run would have them."""

from typing import Any

from llmkit.config.optim import OptimConfig
from llmkit.config.shape import plugin_model


def optim(optimizer: dict[str, Any] | None = None, **settings: Any) -> OptimConfig:
    """The section with an optimizer and its options in it."""
    options = optimizer or {"name": "adamw"}
    chosen = plugin_model("optimizers", options["name"]).model_validate(options)
    return OptimConfig.model_validate({"optimizer": chosen, **settings})
