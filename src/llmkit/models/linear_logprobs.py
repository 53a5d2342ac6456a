"""Log-probabilities straight from hidden states: the logits exist a few rows at a time and never as a whole."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmkit.models.chunked_head import ChunkedHead
from llmkit.models.scoring import PLAIN, Scoring, TokenLogprobs
from llmkit.models.tied_embedding import meeting_of

KEPT_BYTES = 256 << 20
"""Memory that logits may take until the backward pass, which computes the rest of them again."""
SLAB = 4096
"""Rows of the head whose gradient is added up at a time: what is to be widened then stays in a CPU's cache."""
NO_GRADIENTS = (None,) * 5
"""Of the arguments after hidden states, weight and bias."""


def linear_logprobs(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    *,
    scoring: Scoring = PLAIN,
    entropy: Literal["none", "value", "gradient"] = "none",
    mean_logprobs: bool = False,
    loss_scales: Tensor | None = None,
) -> TokenLogprobs:
    """What `hidden @ weight.T + bias` says about `targets`, without ever holding [N, V].

    Products run in the type of `hidden`, or in that of autocast; everything after them, and the sum of the weight's
    gradient, is in float32 (float64 for float64).

    Args:
        hidden: [N, H] last hidden states.
        weight: [V, H] of the head; its gradient is left out where it is frozen.
        bias: [V], or None.
        targets: [N] int64 token ids.
        scoring: what comes after the products.
        entropy: whether to measure entropies, and whether a gradient flows through them.
        mean_logprobs: also the mean log-probability over the vocabulary; a gradient flows through it.
        loss_scales: [N] factors, when the loss is known to be `c * sum(loss_scales * logprobs)` for some number c: the
            gradient is then had in the forward pass, and no product is computed twice. A loss that turns out to be
            another one costs time and nothing else.
    """
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):
        hidden = hidden.to(torch.get_autocast_dtype(kind))
    if not torch.is_grad_enabled():
        hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
    # What follows the products is in the wider type, and autocast would take entropies in half the bits.
    with torch.autocast(kind, enabled=False):
        outputs = _LinearLogprobs.apply(hidden, weight, bias, targets, scoring, entropy, mean_logprobs, loss_scales)
    return TokenLogprobs(*outputs)


class _LinearLogprobs(torch.autograd.Function):
    """The log-probability of target y has the gradient `onehot(y) - p` by the scores.

    A row's gradient by its hidden state is that row's own upstream factor times a vector, which the forward pass can
    compute before the factor is known. The weight's gradient sums over rows and must know the factors.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scoring: Scoring,
        entropy: str,
        mean_logprobs: bool,
        loss_scales: Tensor | None,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.scoring, ctx.meeting = scoring, meeting_of(weight)
        by_hidden, by_weight, by_bias = ctx.needs_input_grad[:3]
        trains, head_trains = by_hidden or by_weight or by_bias, by_weight or by_bias
        plain = entropy != "gradient" and not mean_logprobs
        early = trains and plain and (not head_trains or loss_scales is not None)
        ctx.products = {}
        rows_to_keep = KEPT_BYTES // (len(weight) * hidden.element_size()) if trains and not early else 0
        ctx.unit = torch.empty_like(hidden) if early else None
        ctx.head_trains, ctx.loss_scales = head_trains, loss_scales
        ctx.sums = _Sums.like(weight, bias, by_weight, by_bias) if early and head_trains else None

        head = ChunkedHead(weight, bias, hidden, scoring)
        logprobs = torch.empty(len(hidden), dtype=head.kind, device=hidden.device)
        entropies = torch.empty_like(logprobs) if entropy != "none" else None
        means = torch.empty_like(logprobs) if mean_logprobs else None
        for rows in head.chunks:
            products = head.products(rows)
            if rows.stop <= rows_to_keep:
                ctx.products[rows.start] = products.clone()
            found, slope = head.score(products, targets[rows], entropies is not None, mean_logprobs, early)
            for whole, part in zip((logprobs, entropies, means), found, strict=True):
                if whole is not None and part is not None:
                    whole[rows] = part
            if ctx.unit is not None and slope is not None:
                torch.mm(slope, head.weight, out=ctx.unit[rows])
                if ctx.sums is not None and loss_scales is not None:
                    ctx.sums.add(slope, hidden[rows], loss_scales[rows])
        ctx.save_for_backward(hidden, weight, bias, targets, entropies)
        if entropies is not None and entropy == "value":
            ctx.mark_non_differentiable(entropies)
        return logprobs, entropies, means

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        ctx: Any, by_logprobs: Tensor | None, by_entropies: Tensor | None, by_means: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, entropies = ctx.saved_tensors
        if ctx.unit is not None and by_logprobs is not None:
            by_hidden = (ctx.unit * by_logprobs[:, None]).to(hidden.dtype)
            if not ctx.head_trains:
                return by_hidden, None, None, *NO_GRADIENTS
            factor = _multiple(by_logprobs, ctx.loss_scales)
            if ctx.sums is not None and factor is not None:
                # Autograd may keep what it is given: a second pass over a retained graph computes its own.
                early, ctx.sums = ctx.sums, None
                return by_hidden, *_left(ctx, early.times(factor, weight, bias)), *NO_GRADIENTS
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        sums = _Sums.like(weight, bias, *ctx.needs_input_grad[1:3])
        head = ChunkedHead(weight, bias, hidden, ctx.scoring)
        if by_logprobs is None:
            by_logprobs = torch.zeros(len(hidden), dtype=head.kind, device=hidden.device)
        for rows in head.chunks:
            # Kept ones are given up at once; a second pass over a retained graph computes them again.
            products = ctx.products.pop(rows.start, None)
            products = head.products(rows) if products is None else products
            gradient = head.gradient(
                products,
                targets[rows],
                by_logprobs[rows],
                None if by_means is None else by_means[rows],
                None if by_entropies is None else (by_entropies[rows], entropies[rows]),
            )
            if by_hidden is not None:
                torch.mm(gradient, head.weight, out=by_hidden[rows])
            sums.add(gradient, hidden[rows], None)
        return by_hidden, *_left(ctx, sums.times(1.0, weight, bias)), *NO_GRADIENTS


def _left(ctx: Any, gradients: tuple[Tensor | None, Tensor | None]) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by weight and bias; the embedding that shares the weight may find the first one."""
    if ctx.meeting is not None:
        ctx.meeting.leave(gradients[0])
    return gradients


@dataclass
class _Sums:
    """Gradients of the head, summed over chunks of rows in float32 at least; None where it is frozen."""

    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def like(cls, weight: Tensor, bias: Tensor | None, by_weight: bool, by_bias: bool) -> "_Sums":
        kind = torch.promote_types(weight.dtype, torch.float32)
        return cls(
            torch.zeros_like(weight, dtype=kind) if by_weight else None,
            torch.zeros_like(bias, dtype=kind) if by_bias and bias is not None else None,
        )

    def add(self, gradient: Tensor, hidden: Tensor, scales: Tensor | None) -> None:
        """Add [n, V] gradients by the products, each row multiplied by its scale."""
        if self.weight is not None:
            inner = hidden if scales is None else hidden * scales[:, None].to(hidden.dtype)
            if self.weight.dtype == gradient.dtype:
                self.weight.addmm_(gradient.T, inner)
            else:
                for start in range(0, len(self.weight), SLAB):
                    self.weight[start : start + SLAB] += gradient[:, start : start + SLAB].T @ inner
        if self.bias is not None:
            ones = (
                torch.ones(len(gradient), dtype=self.bias.dtype, device=gradient.device) if scales is None else scales
            )
            self.bias += ones.to(self.bias.dtype) @ gradient.to(self.bias.dtype)

    def times(self, factor: float, weight: Tensor, bias: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        """The gradients in the types of their parameters, multiplied."""
        return (
            None if self.weight is None else _scaled(self.weight, factor).to(weight.dtype),
            None if self.bias is None or bias is None else self.bias.mul_(factor).to(bias.dtype),
        )


def _scaled(sums: Tensor, factor: float) -> Tensor:
    """The sums times a factor, which most losses leave at 1."""
    return sums if factor == 1.0 else sums.mul_(factor)


def _multiple(gradient: Tensor, scales: Tensor | None) -> float | None:
    """The number c with `gradient = c * scales`; None if there is none."""
    if scales is None:
        return None
    scales = scales.to(gradient.dtype)
    square = float(scales.square().sum())
    factor = float((gradient * scales).sum()) / square if square else 0.0
    return factor if torch.allclose(gradient, factor * scales, rtol=1e-5, atol=0.0) else None
