"""Log-probabilities of tokens under a model."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmkit.models.packed import packed_logits
from llmkit.types import Batch


def supervised_positions(batch: Batch) -> Tensor:
    """[N] indices t of the tokens that carry loss. The first token of a sequence cannot: nothing comes before it."""
    return batch.loss_weights.nonzero().flatten()


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


def token_logprobs(
    model: nn.Module,
    batch: Batch,
    *,
    temperature: float = 1.0,
    entropy: Literal["none", "value", "gradient"] = "none",
    mean_logprobs: bool = False,
) -> TokenLogprobs:
    """Log-probability of each token that carries loss, given what is before it.

    Args:
        temperature: divides the logits, as the sampler did.
        entropy: whether to measure the entropy of each of those distributions, and whether a gradient flows through it.
        mean_logprobs: also measure the mean log-probability over the vocabulary; a gradient flows through it.
    """
    positions = supervised_positions(batch)
    logits = packed_logits(model, batch, positions - 1).float()
    if temperature != 1.0:
        logits = logits / temperature
    targets = batch.token_ids[positions]
    logprobs = -F.cross_entropy(logits, targets, reduction="none")
    return TokenLogprobs(
        logprobs,
        None if entropy == "none" else entropies(logits if entropy == "gradient" else logits.detach()),
        # The mean over log-softmax without making it: its normalizer is known from the target's.
        logits.mean(dim=-1) - logits.gather(-1, targets[:, None])[:, 0] + logprobs if mean_logprobs else None,
    )


def entropies(logits: Tensor) -> Tensor:
    """[N] entropies, nats, of the distributions that [N, V] logits stand for."""
    logprobs = torch.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
