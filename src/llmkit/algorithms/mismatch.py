"""How far trainer and engine disagree about the tokens that the engine sampled, before any correction.

Engines compute with other kernels, in other precisions, or with older weights than the trainer. Where nothing of that
is so, every number here is that of equal probabilities: 0, or a ratio of 1.
"""

import torch
from torch import Tensor

QUANTILES = {"p01": 0.01, "p50": 0.5, "p99": 0.99, "max": 1.0}


@torch.no_grad()
def mismatch(logprobs: Tensor, sampler_logprobs: Tensor) -> dict[str, float]:
    """Figures over all tokens of a step.

    Args:
        logprobs: [N] of the sampled tokens under the policy that the step begins with, nats; at least one.
        sampler_logprobs: [N] as the engine gave them.
    Returns:
        - `logprob_mismatch_kl` and `logprob_mismatch_k1`: KL(engine || policy) per token, by the estimators k3 and k1,
          of which the second has a sign.
        - `logprob_mismatch_ratio_p01`, `_p50`, `_p99` and `_max`: quantiles of policy over engine probability, exact:
          the value at the nearest rank.
        - `logprob_mismatch_abs_p_mean` and `_max`: absolute difference of the two probabilities.
    Source: estimators http://joschu.net/blog/kl-approx.html.
    """
    logprobs, sampler_logprobs = logprobs.double(), sampler_logprobs.double()
    gaps = logprobs - sampler_logprobs
    ratios = gaps.exp()
    ordered = ratios.sort().values
    differences = (logprobs.exp() - sampler_logprobs.exp()).abs()
    return {
        "logprob_mismatch_kl": float((ratios - 1 - gaps).mean()),
        "logprob_mismatch_k1": float(-gaps.mean()),
        **{
            f"logprob_mismatch_ratio_{name}": float(ordered[round(share * (len(ordered) - 1))])
            for name, share in QUANTILES.items()
        },
        "logprob_mismatch_abs_p_mean": float(differences.mean()),
        "logprob_mismatch_abs_p_max": float(differences.max()),
    }
