"""Weights that vLLM's CPU backend keeps in a packed form, and what new weights do to it.

A layer's `cpu_linear` is a function that holds its packed weight: a oneDNN handler, or a packed tensor. Loading makes
new ones; two things go wrong then, and nothing says so:

* compiled code does not ask the layer again: it goes on with the packed weight that it was compiled with;
* a layer that keeps its plain weight too, such as an output head that shares it with the embedding, is not packed
  again when the weight it shares has changed.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class _Packed:
    """A packed weight and the layers that multiply with it: an adapter's wrapper and its base layer share one.

    Attributes:
        cells: what the function holds, in order.
    """

    function: Any
    cells: list[Any]
    layers: list[nn.Module]


class PackedLayers:
    """The packed weights that a model had before an update; they are the ones to use after it too."""

    def __init__(self, model: nn.Module) -> None:
        self._packed: dict[int, _Packed] = {}
        for layer in model.modules():
            function = vars(layer).get("cpu_linear")
            if function is not None and any(_is_packed(cell) for cell in _cells(function)):
                known = self._packed.setdefault(id(function), _Packed(function, _cells(function), []))
                known.layers.append(layer)

    def renew(self) -> int:
        """Put what the update packed into the place of what was there before; returns the number of packed weights.

        Raises:
            RuntimeError: a layer got no new weight.
        """
        for packed in self._packed.values():
            fresh = _fresh(packed) or _pack(packed)
            for old, new in zip(packed.cells, _cells(fresh), strict=True):
                _move(old, new)
            for layer in packed.layers:
                layer.cpu_linear = packed.function  # type: ignore[assignment]
        return len(self._packed)


def _fresh(packed: _Packed) -> Any:
    """The function that loading has given to a layer; None where it has not."""
    return next((one for layer in packed.layers if (one := layer.cpu_linear) is not packed.function), None)


def _pack(packed: _Packed) -> Any:
    """Pack the plain weight of a layer that was not loaded itself: it shares the weight of one that was."""
    layer: Any = packed.layers[0]
    if layer.weight.numel() == 0:
        raise RuntimeError(f"a layer of the kind {type(layer).__name__} got no new weight")
    layer.quant_method.process_weights_after_loading(layer)
    return layer.cpu_linear


def _cells(function: Any) -> list[Any]:
    return [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]


def _is_packed(content: Any) -> bool:
    return isinstance(content, torch.Tensor) or hasattr(content, "handler_tensor")


def _move(old: Any, new: Any) -> None:
    """Give `old`, which compiled code holds, what `new` has."""
    if isinstance(old, torch.Tensor):
        old.copy_(new)
    elif hasattr(old, "handler_tensor"):
        # The tensor holds the packed weight's address. `new` gets the old one, and frees it when it goes.
        address = old.handler_tensor.clone()
        old.handler_tensor.copy_(new.handler_tensor)
        new.handler_tensor.copy_(address)
