"""What would come of k attempts, told from n: unbiased estimates. Numbers only."""

from collections.abc import Hashable, Sequence
from math import comb


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Chance that at least one of k samples is right, when `num_right` of `num_samples` were.

    Args:
        k: from 1 to `num_samples`.
    Source: arXiv:2107.03374, equation 1, with exact integers.
    """
    assert 1 <= k <= num_samples, f"pass@{k} of {num_samples} samples"
    return 1.0 - comb(num_samples - num_right, k) / comb(num_samples, k)


def majority(answers: Sequence[Hashable | None], rewards: Sequence[float]) -> float:
    """Reward of the answer that most samples give (arXiv:2203.11171); 0 when none gives any.

    Samples without an answer do not vote. Where several answers have the most votes, it is the mean of theirs.

    Args:
        answers: of the samples; equal ones are one answer, None is no answer.
        rewards: of the samples; those of one answer count with their mean.
    """
    votes: dict[Hashable, list[float]] = {}
    for answer, reward in zip(answers, rewards, strict=True):
        if answer is not None:
            votes.setdefault(answer, []).append(reward)
    most = max(map(len, votes.values()), default=0)
    winners = [sum(found) / len(found) for found in votes.values() if len(found) == most]
    return sum(winners) / len(winners) if winners else 0.0


def attempts(group_size: int) -> list[int]:
    """The k to tell about: powers of two up to the size of a group, and that size."""
    powers = [1 << exponent for exponent in range(group_size.bit_length()) if 1 << exponent <= group_size]
    return sorted({*powers, group_size}) if group_size else []
