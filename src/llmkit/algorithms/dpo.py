"""Direct preference optimization: a weighted sum of the losses in `preference`, and what is measured beside it."""

from collections.abc import Mapping

import torch
from torch import Tensor

from llmkit.algorithms.preference import LOSSES, Constants, Pairs


def dpo_loss(pairs: Pairs, weights: Mapping[str, float], constants: Constants) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss of each preference pair.

    Args:
        pairs: B pairs.
        weights: names of losses with their weights.
        constants: the numbers in the losses.
    Returns: [B] losses, and [B] metrics: implicit rewards of both answers, their margin, whether it is positive, and
        each loss before its weight where there are several.
    Raises: ValueError if there is no loss of a name.
    """
    if unknown := weights.keys() - LOSSES.keys():
        raise ValueError(f"no preference loss named {', '.join(sorted(unknown))}; there are: {', '.join(LOSSES)}")
    losses = {name: LOSSES[name](pairs, constants) for name in weights}
    total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum(dim=0)
    metrics = {f"loss_{name}": loss.detach() for name, loss in losses.items()} if len(losses) > 1 else {}
    return total, metrics | reward_metrics(pairs, constants.beta)


@torch.no_grad()
def reward_metrics(pairs: Pairs, beta: float) -> dict[str, Tensor]:
    """[B] implicit rewards, up to what both answers share. Source: arXiv:2305.18290, equation 5."""
    margin = beta * pairs.margin
    return {
        "rewards_chosen": beta * pairs.chosen,
        "rewards_rejected": beta * pairs.rejected,
        "rewards_margin": margin,
        "rewards_accuracy": (margin > 0).float(),
    }
