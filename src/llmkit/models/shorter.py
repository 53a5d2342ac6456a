"""Shorter ways to a model's own numbers, put in the place of its modules' forward passes."""

from weakref import WeakSet

from torch import nn

from llmkit.models import gates, last_layer, norms, rotary, tied_embedding

_prepared: WeakSet[nn.Module] = WeakSet()


def prepare(model: nn.Module) -> None:
    """Give norms, attention layers, gated layers and tied embeddings of the common forms a shorter way.

    It may be called again.
    """
    if model in _prepared:
        return
    norms.prepare(model)
    gates.prepare(model)
    rotary.prepare(model)
    last_layer.prepare(model)
    tied_embedding.prepare(model)
    _prepared.add(model)
