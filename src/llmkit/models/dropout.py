"""Dropout off, where log-probabilities of two passes are compared."""

from torch import nn


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout of `model` to 0: its layers, and the rates that attention modules keep as numbers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            vars(module)["attention_dropout"] = 0.0
