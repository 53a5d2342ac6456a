"""Tokens that were sampled by another policy than the one that a step begins with, and how to make up for it.

The engine that samples may have older weights than the trainer, or other kernels. Decoupled PPO (arXiv:2505.24298)
weighs each token with the proximal policy (the one that the step begins with) over the one that sampled it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.algorithms.aggregate import sequence_means


@dataclass(frozen=True, slots=True)
class Correction:
    """How the weights are bounded.

    Attributes:
        action: `none`; `truncate` holds weights within the bounds; `mask` makes those outside of them 0.
        level: `token`, or `sequence`: one weight for each sequence, the geometric mean of its tokens'.
        lower: smallest weight.
        upper: largest weight.
    """

    action: str = "none"
    level: str = "token"
    lower: float = 0.0
    upper: float = 2.0


@torch.no_grad()
def importance_weights(
    logprobs: Tensor, sampler_logprobs: Tensor, sequence_ids: Tensor, correction: Correction
) -> tuple[Tensor, dict[str, Tensor]]:
    """Factor of each token's loss that makes up for the difference; constants, no gradient flows through them.

    Args:
        logprobs: [N] of the sampled tokens under the proximal policy, nats.
        sampler_logprobs: [N] under the policy that sampled them.
        sequence_ids: [N] which sequence each belongs to, from 0.
        correction: what to do.
    Returns: [N] weights, and [N] metrics `importance_weight_mean` (before the bounds) and
        `importance_clipped_fraction` (1 where a bound was passed); no metrics with the action `none`.
    Raises: ValueError if action or level is unknown.
    Source: truncation arXiv:1802.01561, section 4.1; decoupled PPO arXiv:2505.24298.
    """
    if correction.action == "none":
        return torch.ones_like(logprobs), {}
    gaps = logprobs - sampler_logprobs
    match correction.level:
        case "token":
            weights = gaps.exp()
        case "sequence":
            weights = sequence_means(gaps, sequence_ids).exp()
        case _:
            raise ValueError(f"level must be 'token' or 'sequence', got {correction.level!r}")
    bounded = weights.clamp(correction.lower, correction.upper)
    outside = bounded != weights
    metrics = {"importance_weight_mean": weights, "importance_clipped_fraction": outside.to(weights.dtype)}
    match correction.action:
        case "truncate":
            return bounded, metrics
        case "mask":
            return weights.masked_fill(outside, 0.0), metrics
    raise ValueError(f"action must be 'none', 'truncate' or 'mask', got {correction.action!r}")
