"""Group-relative policy optimization. Formulae only: no rollouts, no reference forward, no optimizer."""

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, group_ids: Tensor, *, scale_by_std: bool = True, eps: float = 1e-6) -> Tensor:
    """How much better each completion did than the others of its group.

    Groups are told by id, so one may have lost a member without touching its neighbours.

    Args:
        rewards: [B] rewards of the completions.
        group_ids: [B] completions of one prompt share an id.
        scale_by_std: divide by the group's population deviation; off is the form of arXiv:2503.20783.
        eps: added to the deviation, in reward units, so that equal rewards give 0 and not NaN.
    Returns: [B] advantages; each group's sum is 0.
    Raises: ValueError if a group has one member, which leaves nothing to compare with.
    Source: arXiv:2402.03300, section 4.1.2.
    """
    _, index, counts = group_ids.unique(return_inverse=True, return_counts=True)
    if (counts < 2).any():
        raise ValueError("a group needs at least two completions: one alone has nothing to be compared with")
    mean = torch.zeros(len(counts), dtype=rewards.dtype).index_add_(0, index, rewards) / counts
    centred = rewards - mean[index]
    if not scale_by_std:
        return centred
    variance = torch.zeros(len(counts), dtype=rewards.dtype).index_add_(0, index, centred**2) / counts
    return centred / (variance.sqrt()[index] + eps)


def grpo_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    reference_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate loss of each sampled token.

    Args:
        logprobs: [N] log-probabilities of the sampled tokens under the policy, nats.
        old_logprobs: [N] under the policy that the step began with; equal to `logprobs` on policy.
        advantages: [N] each token's advantage.
        clip_low: the ratio is held above `1 - clip_low`.
        clip_high: the ratio is held below `1 + clip_high`.
        reference_logprobs: [N] under the reference model; needed when `kl_coef` is not 0.
        kl_coef: weight of the KL penalty.
    Returns: [N] losses, and [N] metrics `ratio_clipped` (1 where the clip cuts the gradient off) and `kl`.
    Source: arXiv:2402.03300, equations 3 and 4; separate bounds from arXiv:2503.14476, equation 10.
    """
    ratio = (logprobs - old_logprobs).exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    loss = -torch.minimum(ratio * advantages, clipped * advantages)
    metrics = {"ratio_clipped": (clipped * advantages < ratio * advantages).float().detach()}
    if reference_logprobs is not None:
        kl = kl_k3(logprobs, reference_logprobs)
        loss = loss + kl_coef * kl
        metrics["kl"] = kl.detach()
    return loss, metrics


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """[N] estimates of KL(policy || reference) from the policy's own samples: unbiased and never negative.

    Source: http://joschu.net/blog/kl-approx.html, estimator k3, with r = reference / policy.
    """
    log_ratio = reference_logprobs - logprobs
    return log_ratio.exp() - 1 - log_ratio
