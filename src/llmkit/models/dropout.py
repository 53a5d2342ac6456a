"""Dropout off, where log-probabilities of two passes are compared."""

from torch import nn

DROPOUT_IS_OFF = (
    "Dropout has no effect here and is off: it would make log-probabilities of two passes differ by chance."
)


def disable_dropout(model: nn.Module) -> bool:
    """Set every dropout of `model` to 0: its layers, and the rates that attention modules keep as numbers.

    Returns: whether there was any.
    """
    found = False
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            found = found or module.p > 0
            module.p = 0.0
        rate = getattr(module, "attention_dropout", None)
        if isinstance(rate, float):
            found = found or rate > 0
            vars(module)["attention_dropout"] = 0.0
    return found
