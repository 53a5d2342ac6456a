"""What is left of a distribution after top-k, top-p and min-p, and drawing from it."""

import torch
from torch import Tensor

FIRST_LOOK = 1024
"""Likeliest tokens that are sorted before a whole row is."""
SHORT_LOOK = 64
FREE_TO_READ = ("cpu",)
"""Devices whose numbers Python may look at while others are computed; elsewhere it would wait for all before them."""


def truncate(logprobs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """Set what top-k, then top-p, then min-p leave out to minus infinity; the likeliest token always stays.

    Top-p (arXiv:1904.09751) keeps the smallest set of likeliest tokens whose share of what top-k left reaches `top_p`;
    min-p (arXiv:2407.01082) keeps those at least `min_p` times as likely as the likeliest. Of equally likely tokens
    those with lower ids come first.

    Args:
        logprobs: [R, V] normalised log-probabilities.
        top_k: [R] int64, V or more where it is off.
        top_p: [R] float32, 1 where it is off.
        min_p: [R] float32, 0 where it is off.
    Returns: [R, V].
    """
    size = logprobs.shape[1]
    look = SHORT_LOOK if bool((top_k <= SHORT_LOOK).all()) else FIRST_LOOK
    if look >= size:
        return truncate_sorted(logprobs, top_k, top_p, min_p)
    ordered = logprobs.topk(look, dim=1)[0]
    num_kept = _num_kept(ordered, size, top_k, top_p, min_p)
    unresolved = _unresolved(num_kept, look, size, top_k, top_p)
    if bool(unresolved.all()):
        return truncate_sorted(logprobs, top_k, top_p, min_p)
    kept = _keep_first(logprobs, ordered, num_kept)
    if bool(unresolved.any()):
        rows = unresolved.nonzero()[:, 0]
        kept[rows] = truncate_sorted(logprobs[rows], top_k[rows], top_p[rows], min_p[rows])
    return kept


def truncate_ahead(logprobs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> tuple[Tensor, Tensor]:
    """`truncate` without a look at any number on the way.

    Returns: [R, V], and [R] True for rows that may keep more than was looked at: `truncate_sorted` has to do these.
    """
    size = logprobs.shape[1]
    look = min(FIRST_LOOK, size)
    ordered = logprobs.topk(look, dim=1)[0]
    num_kept = _num_kept(ordered, size, top_k, top_p, min_p)
    return _keep_first(logprobs, ordered, num_kept), _unresolved(num_kept, look, size, top_k, top_p)


def truncate_sorted(logprobs: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    ordered = logprobs.sort(dim=1, descending=True)[0]
    return _keep_first(logprobs, ordered, _num_kept(ordered, logprobs.shape[1], top_k, top_p, min_p))


def _unresolved(num_kept: Tensor, look: int, size: int, top_k: Tensor, top_p: Tensor) -> Tensor:
    """[R] sums over what top-k leaves need all of it; and who keeps all that was looked at may keep more."""
    if look == size:
        return torch.zeros_like(num_kept, dtype=torch.bool)
    return ((num_kept == look) & (top_k > look)) | ((top_k > look) & (top_k < size) & (top_p < 1))


def _num_kept(ordered: Tensor, size: int, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """How many of the log-probabilities, the greatest of `size` in order, stay: [R] from [R, N]."""
    length = ordered.shape[1]
    rank = torch.arange(length, device=ordered.device)
    probability = ordered.exp()
    cumulative = probability.cumsum(dim=1)
    # Taken from the running sum, so that it does not depend on how many of the likeliest were sorted.
    share = torch.where(top_k < size, cumulative.gather(1, top_k.clamp(max=length)[:, None] - 1)[:, 0], 1.0)
    before = cumulative - probability
    out = (rank >= top_k[:, None]) | (before >= (top_p * share)[:, None]) & (top_p < 1)[:, None]
    out |= ordered < ordered[:, :1] + min_p.log()[:, None]
    out[:, 0] = False
    return (~out).sum(dim=1)


def _keep_first(logprobs: Tensor, ordered: Tensor, num_kept: Tensor) -> Tensor:
    """Keep the `num_kept` greatest of each row, of equal ones those with lower ids."""
    least = ordered.gather(1, num_kept[:, None] - 1)
    kept = logprobs >= least
    excess = kept.sum(dim=1) - num_kept
    if logprobs.device.type not in FREE_TO_READ or bool((excess > 0).any()):
        ties = logprobs == least
        allowed = ties.sum(dim=1) - excess
        kept &= ~(ties & (ties.cumsum(dim=1) > allowed[:, None]))
    return logprobs.masked_fill(~kept, float("-inf"))


def inverse_cdf(logprobs: Tensor, uniforms: Tensor) -> Tensor:
    """[B] indices drawn from [B, V] unnormalised log-probabilities with [B] float64 uniform numbers in [0, 1).

    A row that has no probability, or none that is a number, gets an arbitrary index.
    """
    # Only the sums need the bits. In place: fresh memory costs as much as the arithmetic.
    cumulative = logprobs.exp().double().cumsum_(dim=-1)
    total = cumulative[:, -1]
    # A product that rounds up to the total would fall behind the last token that has any probability.
    target = torch.minimum(uniforms * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target[:, None], right=True)[:, 0].clamp_(max=logprobs.shape[1] - 1)
