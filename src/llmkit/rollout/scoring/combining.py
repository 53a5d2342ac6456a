"""Values of several rewards as one number."""

import math
from collections.abc import Iterable, Sequence

from llmkit.rollout.scoring.parts import Part
from llmkit.types import Rollout

EPS = 1e-6
"""Added to a group's deviation, so that equal values give 0."""


def combine(rollouts: Sequence[Rollout], parts: Sequence[Part], *, normalize: bool) -> None:
    """Set the reward of every rollout that has all values: their weighted sum.

    A workflow's discount multiplies each value first.

    Args:
        normalize: take off each value its mean in the group, and divide by its deviation there (arXiv:2601.05242,
            GDPO), so that a reward of wide range does not drown the others. Where every rollout is alone, as in
            evaluations, there is nothing to compare with, and values stay as they are.
    """
    scored = [rollout for rollout in rollouts if rollout.reward_error is None]
    groups = _groups(rollouts)
    normalize = normalize and len(groups) < len(rollouts)
    for group in _groups(scored) if normalize else [scored]:
        columns = [[one.rewards[part.name] * one.discount for one in group] for part in parts]
        if normalize:
            columns = [standardized(column) for column in columns]
        for index, rollout in enumerate(group):
            rollout.reward = sum(part.weight * column[index] for part, column in zip(parts, columns, strict=True))


def standardized(values: Sequence[float]) -> list[float]:
    """Distances from the mean, in (population) deviations."""
    mean = math.fsum(values) / len(values)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    return [(value - mean) / (deviation + EPS) for value in values]


def _groups(rollouts: Iterable[Rollout]) -> list[list[Rollout]]:
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        groups.setdefault(rollout.group_id, []).append(rollout)
    return list(groups.values())
