"""Norms and rotary positions of a layer's states in one pass over them, forward and backward, in compiled loops."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmkit.models.kernels import library
from llmkit.models.kernels.structures import NormTask

Angles = tuple[Tensor, Tensor]
"""[T, D] cosines and sines of each token's position."""


def norm_rotate(states: Tensor, weight: Tensor | None, eps: float, angles: Angles | None) -> Tensor:
    """[..., T, H, D] states, each vector first normalized and then turned; `library.takes` says which.

    Args:
        weight: [D] of the norm, arXiv:1910.07467; None leaves it out.
        eps: of the norm.
        angles: arXiv:2104.09864, with halves of a vector as the two coordinates; None turns nothing.
    """
    cosines, sines = (None, None) if angles is None else (one.to(states.dtype).contiguous() for one in angles)
    return _NormRotate.apply(states, weight, eps, cosines, sines)  # pyright: ignore[reportReturnType] - untyped in torch


class _NormRotate(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor | None, eps: float, cosines: Tensor | None, sines: Tensor | None
    ) -> Tensor:
        states = states.contiguous()
        wide = None if weight is None else weight.detach().float().contiguous()
        scales = None if weight is None else torch.empty(states.shape[:-1], dtype=torch.float32)
        output = torch.empty_like(states)
        task = _task(states, wide, eps, cosines, sines, scales)
        library.call("norm_forward", states.dtype, task, output)
        ctx.save_for_backward(None if weight is None else states, weight, cosines, sines, scales)
        ctx.eps, ctx.shape = eps, states.shape
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        states, weight, cosines, sines, scales = ctx.saved_tensors
        upstream = upstream.contiguous()
        wide = None if weight is None else weight.detach().float().contiguous()
        task = _task(upstream if states is None else states, wide, ctx.eps, cosines, sines, scales)
        by_states, sums = torch.empty_like(upstream), None
        if ctx.needs_input_grad[1]:
            pieces = -(-task.tokens // library.NORM_TOKENS)
            sums = torch.empty(pieces, task.width, dtype=torch.float32)
        library.call("norm_backward", upstream.dtype, task, upstream, by_states, sums)
        by_weight = None if sums is None or weight is None else sums.sum(dim=0).to(weight.dtype)
        return by_states, by_weight, None, None, None


def _task(
    states: Tensor,
    weight: Tensor | None,
    eps: float,
    cosines: Tensor | None,
    sines: Tensor | None,
    scales: Tensor | None,
) -> NormTask:
    # Without angles all vectors of a batch are alike, whatever it is shaped like.
    heads, width = (1 if cosines is None else states.shape[-2]), states.shape[-1]
    return NormTask(
        tokens=states.numel() // (heads * width),
        heads=heads,
        width=width,
        threads=torch.get_num_threads(),
        eps=eps,
        input=library.address(states),
        weight=library.address(weight),
        cosines=library.address(cosines),
        sines=library.address(sines),
        scales=library.address(scales),
    )
