"""How much better a completion did than others: rewards to advantages. Groups are told by id, never by position."""

import torch
from torch import Tensor

EPSILON = 1e-6
"""Added to deviations, in reward units, so that equal rewards give 0 and not NaN."""


def advantages(rewards: Tensor, group_ids: Tensor, *, baseline: str, scale: str) -> Tensor:
    """Advantage of each completion.

    A group may have lost members. One that is alone in its group has nothing to be compared with: where a baseline
    compares within groups, it gets 0.

    Args:
        rewards: [B] rewards of the completions.
        group_ids: [B] completions of one prompt share an id.
        baseline: what is taken off: `group_mean`, `leave_one_out` (the mean of the group's other members),
            `batch_mean`, or `none`.
        scale: what the rest is divided by: `group`, the population deviation of the group's rewards; `batch`, that of
            all that is left, whose mean is then taken off too; `none`.
    Returns: [B].
    Raises: ValueError if either is none of these, or a group's deviation is to scale what no group centred.
    Source: group mean and deviation arXiv:2402.03300, section 4.1.2; without deviation arXiv:2503.20783; leave one out
        arXiv:2402.14740; batch deviation arXiv:2501.03262.
    """
    _, index, counts = group_ids.unique(return_inverse=True, return_counts=True)
    counts = counts.to(rewards.dtype)
    means = _group_sums(rewards, index, len(counts)) / counts
    if scale == "group" and baseline not in ("group_mean", "leave_one_out"):
        raise ValueError(f"scale 'group' needs a baseline within groups, got {baseline!r}: deviations may be 0")
    match baseline:
        case "group_mean":
            centred = rewards - means[index]
        case "leave_one_out":
            # r - (sum - r) / (n - 1) is n / (n - 1) times the distance from the mean.
            centred = (rewards - means[index]) * (counts / (counts - 1).clamp(min=1))[index]
        case "batch_mean":
            centred = rewards - rewards.mean()
        case "none":
            centred = rewards
        case _:
            raise ValueError(f"no baseline named {baseline!r}")
    match scale:
        case "group":
            variances = _group_sums((rewards - means[index]) ** 2, index, len(counts)) / counts
            return centred / (variances.sqrt()[index] + EPSILON)
        case "batch":
            return standardize(centred)
        case "none":
            return centred
    raise ValueError(f"no scale named {scale!r}")


def standardize(values: Tensor) -> Tensor:
    """[N] values with mean 0 and population deviation 1; zeros where all are equal."""
    return (values - values.mean()) / (values.std(correction=0) + EPSILON)


def sums_to_the_end(values: Tensor, sequence_ids: Tensor) -> Tensor:
    """Sum of each value and those after it in its sequence: what a token is answerable for.

    Args:
        values: [N], the tokens of each sequence side by side.
        sequence_ids: [N] which sequence each belongs to, rising.
    Returns: [N] in the type of `values`; calculated in float64.
    """
    exact = values.double()
    # Up to the end of everything, less what comes after the sequence.
    to_the_last = exact.flip(0).cumsum(0).flip(0)
    ends = torch.searchsorted(sequence_ids, sequence_ids, right=True)
    after = torch.cat([to_the_last, to_the_last.new_zeros(1)])[ends]
    return (to_the_last - after).to(values.dtype)


def lone_members(group_ids: Tensor) -> int:
    """How many groups have one member."""
    return int((group_ids.unique(return_counts=True)[1] == 1).sum())


def _group_sums(values: Tensor, index: Tensor, num_groups: int) -> Tensor:
    return torch.zeros(num_groups, dtype=values.dtype, device=values.device).index_add(0, index, values)
