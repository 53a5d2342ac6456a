"""How per-token losses become one number that does not depend on how a step is cut into micro-batches."""

import torch
from torch import Tensor


def token_scales(weights: Tensor, sequence_ids: Tensor, average: str, step_total: float) -> Tensor:
    """Factor of each token's loss in the loss of the whole step.

    The step's loss is `sum(scales * losses)` over all its tokens, in whatever micro-batches they come.

    Args:
        weights: [N] loss weights of the supervised tokens.
        sequence_ids: [N] which sequence each belongs to, from 0.
        average: `token` divides by the step's total weight, `sequence` first averages each sequence, then sequences.
        step_total: for `token` the sum of weights over the whole step, for `sequence` its number of sequences.
    Returns: [N] float32.
    Raises: ValueError if `average` is neither.
    Source: arXiv:2402.03300 averages sequences (equation 3); arXiv:2503.14476 tokens (equation 8).
    """
    if average == "token":
        return weights / step_total
    if average == "sequence":
        sums = torch.zeros(int(sequence_ids.max()) + 1, dtype=weights.dtype, device=weights.device)
        sums.index_add_(0, sequence_ids, weights)
        return weights / sums[sequence_ids] / step_total
    raise ValueError(f"average must be 'token' or 'sequence', got {average!r}")


def sequence_sums(values: Tensor, sequence_ids: Tensor, num_sequences: int) -> Tensor:
    """[B] sum of [N] values over each sequence."""
    return torch.zeros(num_sequences, dtype=values.dtype, device=values.device).index_add(0, sequence_ids, values)
