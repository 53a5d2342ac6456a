"""What is made of rewards before they are compared."""

from torch import Tensor


def shape_rewards(
    rewards: Tensor,
    *,
    penalties: Tensor | None = None,
    bias: float = 0.0,
    scale: float = 1.0,
    clip: float | None = None,
) -> Tensor:
    """`clip((rewards + penalties + bias) * scale)`.

    Args:
        rewards: [B].
        penalties: [B], 0 or less, such as `overlong_penalties`; None for none.
        bias: added to every reward.
        scale: multiplies every reward.
        clip: largest absolute value of the result; None for no limit.
    Returns: [B].
    """
    shaped = rewards if penalties is None else rewards + penalties
    shaped = (shaped + bias) * scale
    return shaped if clip is None else shaped.clamp(-clip, clip)


def overlong_penalties(lengths: Tensor, *, max_length: int, buffer: int) -> Tensor:
    """Soft punishment of long completions: 0 until `buffer` tokens before the limit, then linearly down to -1 at it.

    Args:
        lengths: [B] tokens of each completion.
        max_length: the limit, tokens.
        buffer: tokens over which the penalty grows, above 0.
    Returns: [B] penalties between -1 and 0.
    Source: arXiv:2503.14476, equation 13.
    """
    return ((max_length - buffer - lengths) / buffer).clamp(-1.0, 0.0)
