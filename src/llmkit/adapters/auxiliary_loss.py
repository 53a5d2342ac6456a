"""Penalties that belong to an adapter and not to the algorithm: their gradient joins that of the loss."""

from typing import Any


def add_gradients(penalty: Any) -> None:
    """Add a penalty's gradient to those of the step; a penalty that does not depend on any weight adds nothing.

    Args:
        penalty: a scalar tensor, or 0.
    """
    if getattr(penalty, "requires_grad", False):
        penalty.backward()
