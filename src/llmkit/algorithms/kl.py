"""KL divergence of the policy from a reference, estimated from the policy's own samples."""

from torch import Tensor


def kl_estimate(logprobs: Tensor, reference_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """Estimate of KL(policy || reference) from each sampled token.

    As a number, k1 and k3 are unbiased, and k2 and k3 are never negative. As a term of a loss, k2 has the gradient of
    the divergence, k3 nearly so close to the reference, and k1 has a gradient whose mean is 0: it belongs in rewards.

    Args:
        logprobs: [N] log-probabilities of the sampled tokens under the policy, nats.
        reference_logprobs: [N] under the reference model.
        estimator: `k1`, `k2` or `k3`.
    Returns: [N], nats.
    Raises: ValueError if the estimator is none of these.
    Source: http://joschu.net/blog/kl-approx.html; k3 in GRPO: arXiv:2402.03300, equation 4.
    """
    log_ratio = logprobs - reference_logprobs
    match estimator:
        case "k1":
            return log_ratio
        case "k2":
            return log_ratio**2 / 2
        case "k3":
            return (-log_ratio).exp() - 1 + log_ratio
    raise ValueError(f"estimator must be 'k1', 'k2' or 'k3', got {estimator!r}")
