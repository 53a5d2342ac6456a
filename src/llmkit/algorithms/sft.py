"""Supervised fine-tuning: cross-entropy of the tokens that carry loss. No packing, no averaging: see `aggregate`."""

from torch import Tensor


def sft_loss(logprobs: Tensor, scales: Tensor) -> Tensor:
    """Scaled negative log-likelihood.

    Args:
        logprobs: [N] log-probabilities of the supervised tokens, nats.
        scales: [N] factor of each token in the step's loss, from `aggregate.token_scales`.
    Returns: scalar, nats; micro-batches of one step add up to the step's mean.
    """
    return -(logprobs * scales).sum()
