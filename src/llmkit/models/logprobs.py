"""Log-probabilities of tokens under a model."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmkit.models.packed import packed_logits
from llmkit.types import Batch


def supervised_positions(batch: Batch) -> Tensor:
    """[N] indices t of the tokens that carry loss. The first token of a sequence cannot: nothing comes before it."""
    return batch.loss_weights.nonzero().flatten()


def token_logprobs(
    model: nn.Module, batch: Batch, *, temperature: float = 1.0, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each token that carries loss, given what is before it.

    Args:
        temperature: divides the logits, as the sampler did.
        with_entropy: also return the entropy of each of those distributions; no gradient flows through it.
    Returns: [N] float32 log-probabilities, nats, in order of position, and [N] entropies or None.
    """
    positions = supervised_positions(batch)
    logits = packed_logits(model, batch, positions - 1).float()
    if temperature != 1.0:
        logits = logits / temperature
    logprobs = -F.cross_entropy(logits, batch.token_ids[positions], reduction="none")
    return logprobs, entropy(logits.detach()) if with_entropy else None


def entropy(logits: Tensor) -> Tensor:
    """[N] entropies, nats, of the distributions that [N, V] logits stand for."""
    logprobs = torch.log_softmax(logits, dim=-1)
    return -(logprobs.exp() * logprobs).sum(dim=-1)
