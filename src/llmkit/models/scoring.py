"""From the products of an output head to what a model says about tokens."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class TokenLogprobs(NamedTuple):
    """What a model says about N tokens.

    Attributes:
        logprobs: [N] float32 log-probabilities, nats, in order of position.
        entropy: [N] entropies of their distributions, nats; None unless asked for.
        mean_logprobs: [N] mean log-probability over the whole vocabulary, nats; None unless asked for.
    """

    logprobs: Tensor
    entropy: Tensor | None = None
    mean_logprobs: Tensor | None = None


@dataclass(frozen=True)
class Scoring:
    """How the head's products become scores: `softcap * tanh(scale * product / softcap) / temperature`.

    Attributes:
        scale: factor of the architecture.
        softcap: bound that the architecture squeezes scores into; None where it has none.
        temperature: of the sampler.
    """

    scale: float = 1.0
    softcap: float | None = None
    temperature: float = 1.0

    def scores(self, products: Tensor) -> Tensor:
        """[n, V] scores, in float32 at least: their softmax is the distribution."""
        wide = products if products.dtype == torch.float64 else products.float()
        if self.softcap is not None:
            return torch.tanh(wide * (self.scale / self.softcap)) * (self.softcap / self.temperature)
        factor = self.scale / self.temperature
        return wide if factor == 1.0 else wide * factor

    def to_products(self, gradient: Tensor, scores: Tensor) -> Tensor:
        """The gradient by the products, from the one by `scores`, which is overwritten."""
        if self.softcap is not None:
            gradient *= 1 - (scores * (self.temperature / self.softcap)).square()
        factor = self.scale / self.temperature
        return gradient if factor == 1.0 else gradient.mul_(factor)


PLAIN = Scoring()
