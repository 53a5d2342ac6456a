"""Supervised fine-tuning: losses of the tokens that carry loss. No packing, no averaging: see `aggregate`."""

from torch import Tensor


def cross_entropy(logprobs: Tensor, mean_logprobs: Tensor | None = None, label_smoothing: float = 0.0) -> Tensor:
    """Negative log-likelihood of each token, against a target that may be smoothed.

    Args:
        logprobs: [N] log-probabilities of the supervised tokens, nats.
        mean_logprobs: [N] mean log-probability over the whole vocabulary at each of their places; needed for smoothing.
        label_smoothing: share of the target that is spread evenly over the vocabulary.
    Returns: [N], nats.
    Source: arXiv:1512.00567, section 7.
    """
    if not label_smoothing:
        return -logprobs
    assert mean_logprobs is not None, "smoothing compares with the whole vocabulary"
    return -(1 - label_smoothing) * logprobs - label_smoothing * mean_logprobs


def dft(logprobs: Tensor) -> Tensor:
    """Cross-entropy of each token, weighed with the probability that the model gives it.

    The gradient is minus that of the probability itself: a token that the model finds absurd barely moves it, where
    cross-entropy would pull hardest.

    Args:
        logprobs: [N] log-probabilities of the supervised tokens, nats.
    Returns: [N]; no gradient flows through the weights.
    Source: arXiv:2508.05629, dynamic fine-tuning on the level of tokens.
    """
    return -logprobs.detach().exp() * logprobs
