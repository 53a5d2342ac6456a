"""One loss of sampled tokens for the whole family: PPO's clip, dual clip, GSPO, CISPO, SAPO, REINFORCE.

    L = sum_t scale_t * (weight_t * surrogate(ratio_t, advantage_t) + kl_coef * KL_t - entropy_coef * H_t)

with `ratio` the policy over the proximal policy, `weight` from `importance`, KL from `kl`, `scale` from `aggregate`.
Formulae only: no rollouts, no reference forward, no optimizer.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.algorithms.aggregate import sequence_means


@dataclass(frozen=True, slots=True)
class Surrogate:
    """Which loss, with which constants.

    Attributes:
        loss: `clip`, `cispo`, `sapo` or `reinforce`.
        ratio: `token`, or `sequence`: one ratio for each sequence, the geometric mean of its tokens'.
        clip_low: ratios are held above `1 - clip_low`.
        clip_high: ratios are held below `1 + clip_high`.
        dual_clip: ratio at which the loss of a token with a negative advantage stops growing; None lets it grow.
        sapo_temperatures: of `sapo`, for advantages above 0, and for the others.
    """

    loss: str = "clip"
    ratio: str = "token"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float | None = None
    sapo_temperatures: tuple[float, float] = (1.0, 1.05)


def surrogate_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, sequence_ids: Tensor, surrogate: Surrogate
) -> tuple[Tensor, Tensor]:
    """Loss of each sampled token.

    Where policy and proximal policy are the same, every choice has the same gradient: minus the advantage times that of
    the log-probability.

    Args:
        logprobs: [N] log-probabilities of the sampled tokens under the policy, nats.
        old_logprobs: [N] under the proximal policy, with which the step began; equal to `logprobs` on policy.
        advantages: [N] each token's advantage.
        sequence_ids: [N] which sequence each belongs to, from 0; no sequence is divided.
        surrogate: which loss.
    Returns: [N] losses, and [N] 1 where a bound took hold: where `clip` has no gradient, or `cispo` a bounded weight.
    Raises: ValueError if the loss or the level of ratios is unknown.
    """
    if surrogate.loss == "reinforce":
        return -advantages * logprobs, torch.zeros_like(advantages)
    ratios = probability_ratios(logprobs, old_logprobs, sequence_ids, surrogate.ratio)
    match surrogate.loss:
        case "clip":
            return clipped_loss(ratios, advantages, surrogate)
        case "cispo":
            return cispo_loss(logprobs, ratios, advantages, surrogate)
        case "sapo":
            return sapo_loss(ratios, advantages, surrogate.sapo_temperatures), torch.zeros_like(advantages)
    raise ValueError(f"no policy loss named {surrogate.loss!r}; there are: clip, cispo, sapo, reinforce")


def probability_ratios(logprobs: Tensor, old_logprobs: Tensor, sequence_ids: Tensor, level: str) -> Tensor:
    """[N] policy over proximal policy: of each token, or the geometric mean over its sequence.

    Source: sequences arXiv:2507.18071, equation 7.
    """
    log_ratios = logprobs - old_logprobs
    if level == "sequence":
        return sequence_means(log_ratios, sequence_ids).exp()
    if level == "token":
        return log_ratios.exp()
    raise ValueError(f"ratio must be 'token' or 'sequence', got {level!r}")


def clipped_loss(ratios: Tensor, advantages: Tensor, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
    """PPO: no more is gained by moving a ratio out of its bounds.

    Source: arXiv:1707.06347, equation 7; separate bounds arXiv:2503.14476, equation 10; dual clip arXiv:1912.09729,
    equation 5.
    """
    bounded = ratios.clamp(1 - surrogate.clip_low, 1 + surrogate.clip_high)
    free, held = -ratios * advantages, -bounded * advantages
    losses = torch.maximum(free, held)
    flat = held > free
    if surrogate.dual_clip is not None:
        ceiling = -surrogate.dual_clip * advantages
        flat = flat | ((advantages < 0) & (losses > ceiling))
        losses = torch.where(advantages < 0, torch.minimum(losses, ceiling), losses)
    return losses, flat.to(losses.dtype).detach()


def cispo_loss(logprobs: Tensor, ratios: Tensor, advantages: Tensor, surrogate: Surrogate) -> tuple[Tensor, Tensor]:
    """REINFORCE with bounded importance weights: no token loses its gradient. Source: arXiv:2506.13585, equation 4."""
    ratios = ratios.detach()
    weights = ratios.clamp(1 - surrogate.clip_low, 1 + surrogate.clip_high)
    return -weights * advantages * logprobs, (weights != ratios).to(logprobs.dtype)


def sapo_loss(ratios: Tensor, advantages: Tensor, temperatures: tuple[float, float]) -> Tensor:
    """Soft gate in place of a clip: the gradient fades out as the ratio leaves 1, sooner for bad tokens.

    Source: arXiv:2511.20347.
    """
    good, bad = temperatures
    temperature = torch.where(advantages > 0, torch.full_like(ratios, good), torch.full_like(ratios, bad))
    return -4 / temperature * (temperature * (ratios - 1)).sigmoid() * advantages
