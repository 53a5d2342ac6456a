"""Direct preference optimization. Formulae only; no reference model is run here."""

import torch
from torch import Tensor
from torch.nn import functional as F


def dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    reference_chosen: Tensor,
    reference_rejected: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each preference pair.

    Args:
        chosen: [B] log-probability of each preferred answer under the policy, summed over its tokens, nats.
        rejected: [B] the same of the dispreferred answer.
        reference_chosen: [B] under the reference model.
        reference_rejected: [B] under the reference model.
        beta: strength of the pull towards the reference model.
        label_smoothing: probability that a label is wrong; 0 is plain DPO.
    Returns: [B] losses, and [B] metrics: implicit rewards of both answers, their margin, and whether it is positive.
    Source: arXiv:2305.18290, equation 7; label smoothing: https://ericmitchell.ai/cdpo.pdf, equation 3.
    """
    reward_chosen = beta * (chosen - reference_chosen)
    reward_rejected = beta * (rejected - reference_rejected)
    margin = reward_chosen - reward_rejected
    loss = -(1 - label_smoothing) * F.logsigmoid(margin) - label_smoothing * F.logsigmoid(-margin)
    with torch.no_grad():
        metrics = {
            "rewards_chosen": reward_chosen.detach(),
            "rewards_rejected": reward_rejected.detach(),
            "rewards_margin": margin.detach(),
            "rewards_accuracy": (margin > 0).float(),
        }
    return loss, metrics
