"""A language model's head on a few rows at a time: products, what they say of target tokens, and its gradient."""

from functools import cached_property

import torch
from torch import Tensor

from llmkit.models.kernels import library
from llmkit.models.kernels.scoring import score_rows
from llmkit.models.scoring import Scoring, TokenLogprobs

CHUNK_BYTES = 64 << 20
"""Memory that the float32 logits of one chunk of rows may take."""


class ChunkedHead:
    """The head's forward on a few rows at a time, in buffers that all chunks share: fresh memory costs more to touch
    than to compute with.

    Attributes:
        weight: [V, H] in the type of the products.
        kind: type of scores and probabilities.
        chunks: rows whose logits fit into the budget, one chunk after the other.
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
        self._is_compiled = library.takes(self._products)

    @cached_property
    def _scores(self) -> Tensor:
        return torch.empty_like(self._products, dtype=self.kind)

    @cached_property
    def _probabilities(self) -> Tensor:
        return torch.empty_like(self._products, dtype=self.kind)

    def products(self, rows: slice) -> Tensor:
        """[n, V] of these rows; good until the next chunk."""
        products = self._products[: rows.stop - rows.start]
        torch.mm(self._hidden[rows], self.weight.T, out=products)
        return products if self._bias is None else products.add_(self._bias)

    def score(
        self, products: Tensor, targets: Tensor, entropy: bool, mean_logprobs: bool, slope: bool
    ) -> tuple[TokenLogprobs, Tensor | None]:
        """What the products say about the targets, and, if asked for, the slope of each log-probability by its row of
        products, which takes their place."""
        if self._is_compiled:
            ones = torch.ones(len(products)) if slope else None
            found = score_rows(
                products, targets, self._scoring, entropy=entropy, mean_logprobs=mean_logprobs, upstream=ones
            )
            return found, products if slope else None
        scores = self._widen(products)
        probabilities, normalizers = self._softmax(scores)
        found = TokenLogprobs(
            scores.gather(1, targets[:, None])[:, 0] - normalizers,
            normalizers - torch.linalg.vecdot(probabilities, scores) if entropy else None,
            scores.mean(dim=-1) - normalizers if mean_logprobs else None,
        )
        if not slope:
            return found, None
        gradient = _by_scores(probabilities, normalizers, scores, targets, torch.ones_like(normalizers), None, None)
        return found, self._narrow(self._scoring.to_products(gradient, scores), products)

    def gradient(
        self,
        products: Tensor,
        targets: Tensor,
        by_logprobs: Tensor,
        by_means: Tensor | None,
        by_entropies: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """[n, V] gradient by the products, which it overwrites.

        Args:
            by_entropies: upstream gradients of the entropies, and the entropies.
        """
        if self._is_compiled and by_means is None and by_entropies is None:
            score_rows(products, targets, self._scoring, upstream=by_logprobs)
            return products
        scores = self._widen(products)
        gradient = _by_scores(*self._softmax(scores), scores, targets, by_logprobs, by_means, by_entropies)
        return self._narrow(self._scoring.to_products(gradient, scores), products)

    def _widen(self, products: Tensor) -> Tensor:
        """[n, V] scores in the wider type; good until the next chunk."""
        if products.dtype == self.kind:
            return self._scoring.scores(products)
        return self._scoring.scores(self._scores[: len(products)].copy_(products))

    def _softmax(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """[n, V] probabilities, good until the next chunk, and [n] logarithms of their normalizers."""
        probabilities = self._probabilities[: len(scores)]
        torch.softmax(scores, -1, out=probabilities)
        # The greatest probability is at least 1 / V, so that its logarithm is exact to rounding.
        return probabilities, scores.amax(dim=-1) - probabilities.amax(dim=-1).log()

    def _narrow(self, gradient: Tensor, products: Tensor) -> Tensor:
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
