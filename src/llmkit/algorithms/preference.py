"""Losses of preference pairs: the DPO family. Formulae only; no reference model is run here.

Each takes the log-ratios of both answers: how much more likely the policy makes them than the reference model does,
nats. `beta` times a log-ratio is the answer's implicit reward. Compared with nothing (reference-free), log-ratios are
the policy's log-probabilities themselves.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

EXO_SMOOTHING = 1e-3
"""Label smoothing of `exo` where none is set: without any, its divergence is infinite."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """B preference pairs.

    Attributes:
        chosen: [B] log-ratio of each preferred answer, summed over its tokens, nats.
        rejected: [B] the same of the dispreferred answer.
        chosen_lengths: [B] trained tokens of the preferred answer.
        rejected_lengths: [B] the same of the dispreferred answer.
        chosen_logprobs: [B] log-probability of the preferred answer under the policy alone, summed, nats.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_lengths: Tensor
    rejected_lengths: Tensor
    chosen_logprobs: Tensor

    @property
    def margin(self) -> Tensor:
        """[B] how much more the policy has moved towards the preferred answer."""
        return self.chosen - self.rejected

    @property
    def margin_per_token(self) -> Tensor:
        """[B] the same of log-ratios averaged over each answer's tokens."""
        return self.chosen / self.chosen_lengths - self.rejected / self.rejected_lengths


@dataclass(frozen=True, slots=True)
class Constants:
    """The numbers in the losses.

    Attributes:
        beta: strength of the pull towards the reference model.
        label_smoothing: probability that a label is wrong.
        discopop_temperature: of the modulation in `discopop`.
        mean_reward: mean implicit reward of all answers of the step, chosen and rejected; for `bco`.
    """

    beta: float
    label_smoothing: float = 0.0
    discopop_temperature: float = 0.05
    mean_reward: float = 0.0


def sigmoid(pairs: Pairs, constants: Constants) -> Tensor:
    """Logistic loss of the margin; with label smoothing, conservative DPO.

    Source: arXiv:2305.18290, equation 7; label smoothing: https://ericmitchell.ai/cdpo.pdf, equation 3.
    """
    margin, smoothing = constants.beta * pairs.margin, constants.label_smoothing
    return -(1 - smoothing) * F.logsigmoid(margin) - smoothing * F.logsigmoid(-margin)


def sigmoid_norm(pairs: Pairs, constants: Constants) -> Tensor:
    """Logistic loss of the margin per token, so that length alone is worth nothing.

    Source: arXiv:2411.15124, length-normalized DPO.
    """
    return -F.logsigmoid(constants.beta * pairs.margin_per_token)


def hinge(pairs: Pairs, constants: Constants) -> Tensor:
    """Nothing is gained beyond a margin of 1. Source: arXiv:2309.06657 (RSO), after SLiC, arXiv:2305.10425."""
    return torch.relu(1 - constants.beta * pairs.margin)


def ipo(pairs: Pairs, constants: Constants) -> Tensor:
    """Squared distance of the margin from `1 / (2 beta)`: preferences that are certain do not pull for ever.

    Source: arXiv:2310.12036, equation 17, per token, without which long answers outweigh the target.
    """
    return (pairs.margin_per_token - 1 / (2 * constants.beta)) ** 2


def robust(pairs: Pairs, constants: Constants) -> Tensor:
    """Logistic loss that is unbiased where labels are wrong with probability `label_smoothing`, which is below 1/2.

    Source: arXiv:2403.00409 (rDPO).
    """
    margin, noise = constants.beta * pairs.margin, constants.label_smoothing
    return (-(1 - noise) * F.logsigmoid(margin) + noise * F.logsigmoid(-margin)) / (1 - 2 * noise)


def exo(pairs: Pairs, constants: Constants) -> Tensor:
    """KL divergence of the policy's preference from the smoothed label. Source: arXiv:2402.00856, equation 16."""
    margin, smoothing = constants.beta * pairs.margin, constants.label_smoothing or EXO_SMOOTHING
    agrees = margin.sigmoid() * (F.logsigmoid(margin) - math.log1p(-smoothing))
    disagrees = (-margin).sigmoid() * (F.logsigmoid(-margin) - math.log(smoothing))
    return agrees + disagrees


def nca(pairs: Pairs, constants: Constants) -> Tensor:
    """Noise-contrastive alignment: holds the likelihood of good answers up. Source: arXiv:2402.05369, with pairs."""
    chosen, rejected = constants.beta * pairs.chosen, constants.beta * pairs.rejected
    return -F.logsigmoid(chosen) - 0.5 * F.logsigmoid(-chosen) - 0.5 * F.logsigmoid(-rejected)


def bco(pairs: Pairs, constants: Constants) -> Tensor:
    """Classifies answers as good or bad by whether their reward is above the mean. Source: arXiv:2404.04656.

    The mean is that of the whole step, where the paper keeps a moving average over steps.
    """
    chosen, rejected = constants.beta * pairs.chosen, constants.beta * pairs.rejected
    return -F.logsigmoid(chosen - constants.mean_reward) - F.logsigmoid(constants.mean_reward - rejected)


def sppo(pairs: Pairs, constants: Constants) -> Tensor:
    """Self-play preference optimization, where the chosen answer always wins. Source: arXiv:2405.00675, eq. 4.7."""
    return (pairs.chosen - 0.5 / constants.beta) ** 2 + (pairs.rejected + 0.5 / constants.beta) ** 2


def apo_zero(pairs: Pairs, constants: Constants) -> Tensor:
    """Chosen answers become likelier, rejected ones rarer: for data better than the policy.

    Source: arXiv:2408.06266, equation 7.
    """
    return (-constants.beta * pairs.chosen).sigmoid() + (constants.beta * pairs.rejected).sigmoid()


def apo_down(pairs: Pairs, constants: Constants) -> Tensor:
    """Both become rarer, rejected ones more so: for a policy better than its data.

    Source: arXiv:2408.06266, equation 8.
    """
    return (constants.beta * pairs.chosen).sigmoid() + (-constants.beta * pairs.margin).sigmoid()


def discopop(pairs: Pairs, constants: Constants) -> Tensor:
    """Logistic loss of pairs that are ranked wrongly, exponential loss of the others.

    Source: arXiv:2406.08414, equation 5 (log-ratio modulated loss).
    """
    margin = constants.beta * pairs.margin
    modulation = (margin / constants.discopop_temperature).sigmoid()
    return -F.logsigmoid(margin) * (1 - modulation) + (-margin).exp() * modulation


def sft(pairs: Pairs, constants: Constants) -> Tensor:
    """Negative log-likelihood of the chosen answer per token; beside `sigmoid`, the term of RPO, its weight the alpha.

    Source: arXiv:2404.19733, equation 1.
    """
    return -pairs.chosen_logprobs / pairs.chosen_lengths


LOSSES: Mapping[str, Callable[[Pairs, Constants], Tensor]] = {
    loss.__name__: loss
    for loss in (
        sigmoid, sigmoid_norm, hinge, ipo, robust, exo, nca, bco, sppo, apo_zero, apo_down, discopop, sft,
    )
}  # fmt: skip
"""[B] losses by the name that a configuration gives them."""
