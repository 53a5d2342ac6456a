"""Gradients of a large embedding that is also the output head: one matrix for both, and not two for a moment."""

import weakref
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

LARGE_BYTES = 64 << 20
"""Size of an embedding from which on a second gradient of its size costs more than it is worth."""


class Meeting:
    """Where the head's backward pass leaves its gradient for the embedding's, which comes last and adds its rows.

    Autograd waits for both before it hands the gradient on.
    """

    def __init__(self) -> None:
        self._gradient: weakref.ref[Tensor] | None = None

    def leave(self, gradient: Tensor | None) -> None:
        """The head's gradient, as it goes to autograd."""
        self._gradient = None if gradient is None else weakref.ref(gradient)

    def take(self) -> Tensor | None:
        """That gradient; None when nobody holds it any more, or the head had none."""
        return None if self._gradient is None else self._gradient()


_open: dict[int, Meeting] = {}


def meeting_of(weight: Tensor) -> Meeting | None:
    """Where the embedding that these weights were last looked up in, by this forward pass, awaits their gradient."""
    return _open.pop(id(weight), None)


def prepare(model: nn.Module) -> None:
    """Let a step's few rows of a large tied embedding be added to the gradient that the head gives for all of it."""
    embedding: Any = _tied(model)
    if embedding is not None and embedding.weight.device.type == "cpu" and embedding.weight.nbytes >= LARGE_BYTES:
        embedding.forward = MethodType(_forward, embedding)


def undo(model: nn.Module) -> None:
    """For a model that is about to be divided."""
    embedding = _tied(model)
    if embedding is not None:
        vars(embedding).pop("forward", None)


class _Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, token_ids: Tensor, weight: Tensor, padding: int | None) -> Tensor:
        ctx.meeting = _open[id(weight)] = Meeting()
        ctx.token_ids, ctx.padding, ctx.like = token_ids, padding, weight.shape
        return F.embedding(token_ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_rows: Tensor) -> tuple[None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        token_ids, rows = ctx.token_ids.flatten(), by_rows.flatten(0, -2)
        if ctx.padding is not None:
            kept = token_ids != ctx.padding
            token_ids, rows = token_ids[kept], rows[kept]
        found = ctx.meeting.take()
        if found is not None:
            found.index_add_(0, token_ids, rows.to(found.dtype))
            return None, None, None
        return None, rows.new_zeros(ctx.like).index_add_(0, token_ids, rows), None


def _forward(self: nn.Embedding, input: Tensor) -> Tensor:
    if torch.is_grad_enabled() and self.weight.requires_grad and type(self.weight) is nn.Parameter:
        return _Rows.apply(input, self.weight, self.padding_idx)  # pyright: ignore[reportReturnType] - untyped in torch
    return F.embedding(input, self.weight)


def _tied(model: Any) -> nn.Embedding | None:
    """The embedding whose weights the head has too."""
    try:
        embedding, head = model.get_input_embeddings(), model.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # a model that names neither
        return None
    is_plain = type(embedding) is nn.Embedding and embedding.max_norm is None
    return embedding if is_plain and getattr(head, "weight", None) is embedding.weight else None
