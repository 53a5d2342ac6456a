"""Gradients of a large embedding that is also the output head."""

from typing import Any

from torch import nn

LARGE_BYTES = 64 << 20
"""Size of an embedding from which on a second gradient of its size costs more than it is worth."""


def prepare(model: nn.Module) -> None:
    """Let a step's few rows of a tied embedding be added to the gradient that the head gives for all of it.

    Otherwise both would be there as a whole for a moment, which is the most that a small model with a large vocabulary
    ever needs. The sum of the two is an ordinary gradient.
    """
    embedding = _tied(model)
    if embedding is not None and embedding.weight.device.type == "cpu" and embedding.weight.nbytes >= LARGE_BYTES:
        embedding.sparse = True


def undo(model: nn.Module) -> None:
    """For a model that is divided, whose parts take no such rows."""
    embedding = _tied(model)
    if embedding is not None:
        embedding.sparse = False


def _tied(model: Any) -> nn.Embedding | None:
    """The embedding whose weights the head has too."""
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # a model that names neither
        return None
    is_tied = type(embedding) is nn.Embedding and getattr(head, "weight", None) is embedding.weight
    return embedding if is_tied else None
