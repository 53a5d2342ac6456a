"""How per-token losses become one number that does not depend on how a step is cut into micro-batches.

Every loss of a step is `sum(scales * losses)` over all its tokens, with totals of the whole step in the scales: its
parts may be added up in any micro-batches, packing or processes.
"""

import torch
from torch import Tensor


def step_total(average: str, *, num_tokens: float, num_sequences: int, length: int = 0) -> float:
    """What the losses of a whole step are divided by.

    Args:
        average: `token`, `sequence` or `constant`, as for `token_scales`.
        num_tokens: summed weight of the step's tokens.
        num_sequences: of the step.
        length: tokens that each sequence counts for with `constant`.
    Raises: ValueError if `average` is none of them.
    """
    match average:
        case "token":
            return float(num_tokens)
        case "sequence":
            return float(num_sequences)
        case "constant":
            return float(num_sequences * length)
    raise ValueError(f"average must be 'token', 'sequence' or 'constant', got {average!r}")


def token_scales(weights: Tensor, sequence_ids: Tensor, average: str, total: float) -> Tensor:
    """Factor of each token's loss in the loss of the whole step.

    Args:
        weights: [N] loss weights of the supervised tokens.
        sequence_ids: [N] which sequence each belongs to, from 0. No sequence is divided.
        average: `token` and `constant` divide each token by the same total; `sequence` first averages each sequence,
            then sequences.
        total: of the whole step, from `step_total`.
    Returns: [N].
    Raises: ValueError if `average` is none of them.
    Source: sequences arXiv:2402.03300, equation 3; tokens arXiv:2503.14476, equation 8; a constant arXiv:2503.20783.
    """
    if average in ("token", "constant"):
        return weights / total
    if average == "sequence":
        num_sequences = count_sequences(sequence_ids)
        return weights / sequence_sums(weights, sequence_ids, num_sequences)[sequence_ids] / total
    raise ValueError(f"average must be 'token', 'sequence' or 'constant', got {average!r}")


def sequence_sums(values: Tensor, sequence_ids: Tensor, num_sequences: int) -> Tensor:
    """[B] sum of [N] values over each sequence."""
    return torch.zeros(num_sequences, dtype=values.dtype, device=values.device).index_add(0, sequence_ids, values)


def sequence_means(values: Tensor, sequence_ids: Tensor) -> Tensor:
    """[N] mean of [N] values over the sequence that each token belongs to."""
    num_sequences = count_sequences(sequence_ids)
    counts = sequence_sums(torch.ones_like(values), sequence_ids, num_sequences)
    return (sequence_sums(values, sequence_ids, num_sequences) / counts.clamp(min=1))[sequence_ids]


def count_sequences(sequence_ids: Tensor) -> int:
    """How many sequences [N] ids from 0 are of; none when there are no tokens."""
    return int(sequence_ids.max()) + 1 if len(sequence_ids) else 0
