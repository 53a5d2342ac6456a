"""Log-probabilities straight from hidden states: the logits exist a few rows at a time and never as a whole."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmkit.models.scoring import PLAIN, Scoring, TokenLogprobs

CHUNK_BYTES = 64 << 20
"""Memory that the float32 logits of one chunk of rows may take."""
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
        ctx.scoring = scoring
        by_hidden, by_weight, by_bias = ctx.needs_input_grad[:3]
        trains, head_trains = by_hidden or by_weight or by_bias, by_weight or by_bias
        plain = entropy != "gradient" and not mean_logprobs
        early = trains and plain and (not head_trains or loss_scales is not None)
        ctx.products = {}
        rows_to_keep = KEPT_BYTES // (len(weight) * hidden.element_size()) if trains and not early else 0
        ctx.unit = torch.empty_like(hidden) if early else None
        ctx.head_trains, ctx.loss_scales = head_trains, loss_scales
        ctx.sums = _Sums.like(weight, bias, by_weight, by_bias) if early and head_trains else None

        head = _Head(weight, bias, hidden, scoring)
        logprobs = torch.empty(len(hidden), dtype=head.kind, device=hidden.device)
        entropies = torch.empty_like(logprobs) if entropy != "none" else None
        means = torch.empty_like(logprobs) if mean_logprobs else None
        for rows in head.chunks:
            products = head.products(rows)
            if rows.stop <= rows_to_keep:
                ctx.products[rows.start] = products.clone()
            scores = head.scores(products)
            probabilities, normalizers = head.softmax(scores)
            aims = targets[rows, None]
            logprobs[rows] = scores.gather(1, aims)[:, 0] - normalizers
            if means is not None:
                means[rows] = scores.mean(dim=-1) - normalizers
            if entropies is not None:
                entropies[rows] = normalizers - torch.linalg.vecdot(probabilities, scores)
            if ctx.unit is not None:
                # The slope of minus the log-probability: its sign is cheaper to change where there is less of it.
                slope = probabilities.scatter_add_(1, aims, torch.full_like(aims, -1, dtype=head.kind))
                slope = head.narrow(scoring.to_products(slope, scores), products)
                torch.mm(slope, head.weight, out=ctx.unit[rows]).neg_()
                if ctx.sums is not None and loss_scales is not None:
                    ctx.sums.add(slope, hidden[rows], -loss_scales[rows])
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
                return by_hidden, *early.times(factor, weight, bias), *NO_GRADIENTS
        by_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        sums = _Sums.like(weight, bias, *ctx.needs_input_grad[1:3])
        head = _Head(weight, bias, hidden, ctx.scoring)
        if by_logprobs is None:
            by_logprobs = torch.zeros(len(hidden), dtype=head.kind, device=hidden.device)
        for rows in head.chunks:
            # Kept ones are given up at once; a second pass over a retained graph computes them again.
            products = ctx.products.pop(rows.start, None)
            products = head.products(rows) if products is None else products
            scores = head.scores(products)
            gradient = _by_scores(
                *head.softmax(scores),
                scores,
                targets[rows],
                by_logprobs[rows],
                None if by_means is None else by_means[rows],
                None if by_entropies is None else (by_entropies[rows], entropies[rows]),
            )
            gradient = head.narrow(ctx.scoring.to_products(gradient, scores), products)
            if by_hidden is not None:
                torch.mm(gradient, head.weight, out=by_hidden[rows])
            sums.add(gradient, hidden[rows], None)
        return by_hidden, *sums.times(1.0, weight, bias), *NO_GRADIENTS


class _Head:
    """The head's forward on a few rows at a time, in buffers that all chunks share: fresh memory costs more to touch
    than to compute with.

    Attributes:
        weight: [V, H] in the type of the products.
        kind: type of scores and probabilities.
        chunks: rows whose float32 logits fit into the budget, one chunk after the other.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, hidden: Tensor, scoring: Scoring) -> None:
        self.weight = weight.to(hidden.dtype)
        self.kind = torch.promote_types(hidden.dtype, torch.float32)
        self._bias = None if bias is None else bias.to(hidden.dtype)
        self._hidden, self._scoring = hidden, scoring
        step = max(1, CHUNK_BYTES // (4 * len(weight)))
        self.chunks = [slice(start, min(start + step, len(hidden))) for start in range(0, len(hidden), step)]
        size = (min(step, len(hidden)), len(weight))
        self._products = torch.empty(size, dtype=hidden.dtype, device=hidden.device)
        self._scores = torch.empty(size, dtype=self.kind, device=hidden.device)
        self._probabilities = torch.empty_like(self._scores)

    def products(self, rows: slice) -> Tensor:
        """[n, V] of these rows; good until the next chunk."""
        products = self._products[: rows.stop - rows.start]
        torch.mm(self._hidden[rows], self.weight.T, out=products)
        return products if self._bias is None else products.add_(self._bias)

    def scores(self, products: Tensor) -> Tensor:
        """[n, V] in the wider type; good until the next chunk."""
        if products.dtype == self.kind:
            return self._scoring.scores(products)
        return self._scoring.scores(self._scores[: len(products)].copy_(products))

    def softmax(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """[n, V] probabilities, good until the next chunk, and [n] logarithms of their normalizers."""
        probabilities = self._probabilities[: len(scores)]
        torch.softmax(scores, -1, out=probabilities)
        # The greatest probability is at least 1 / V, so that its logarithm is exact to rounding.
        return probabilities, scores.amax(dim=-1) - probabilities.amax(dim=-1).log()

    def narrow(self, gradient: Tensor, products: Tensor) -> Tensor:
        """The gradient in the type of the products, whose memory it takes."""
        return gradient if gradient.dtype == products.dtype else products.copy_(gradient)


def _by_scores(
    probabilities: Tensor,
    normalizers: Tensor,
    scores: Tensor,
    targets: Tensor,
    by_logprobs: Tensor,
    by_means: Tensor | None,
    by_entropies: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """[n, V] gradient by the scores; overwrites `probabilities`.

    With p the softmax: a log-probability gives `onehot - p`, the mean of log-probabilities `1 / V - p`, an entropy H
    gives `-p * (log p + H)`.

    Args:
        by_entropies: upstream gradients of the entropies, and the entropies.
    """
    factors = -by_logprobs[:, None] if by_means is None else -(by_logprobs + by_means)[:, None]
    if by_entropies is not None:
        upstream, entropy = by_entropies
        factors = factors - upstream[:, None] * (scores + (entropy - normalizers)[:, None])
    gradient = probabilities.mul_(factors)
    if by_means is not None:
        gradient += by_means[:, None] / scores.shape[-1]
    return gradient.scatter_add_(1, targets[:, None], by_logprobs[:, None])


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
