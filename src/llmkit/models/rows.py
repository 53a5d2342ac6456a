"""Sequences of a packed batch as rows of equal length, and back."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

WASTED_SCORES = 1 << 16
"""Attention scores of padding, per head, that a group of rows may have before another group is cheaper."""


@dataclass(frozen=True)
class Rows:
    """Sequences of about the same length, lifted into right-padded rows: a causal row never looks at the padding behind
    it.

    Attributes:
        members: numbers of the sequences.
        longest: tokens of a row.
        lift: [B * longest] which token of the batch stands at each place; padding repeats some token.
    """

    members: list[int]
    longest: int
    lift: Tensor

    def to_rows(self, packed: Tensor) -> Tensor:
        """[1, H, T, D] to [B, H, longest, D]."""
        heads, _, width = packed.shape[1:]
        rows = packed[0].transpose(0, 1).index_select(0, self.lift)
        return rows.view(len(self.members), self.longest, heads, width).transpose(1, 2)


def row_groups(spans: Sequence[slice], device: torch.device) -> list[Rows]:
    """Divide sequences into groups of similar length."""
    groups: list[list[int]] = []
    wasted = 0
    for number in sorted(range(len(spans)), key=lambda number: -_size(spans[number])):
        if groups:
            wasted += _size(spans[groups[-1][0]]) ** 2 - _size(spans[number]) ** 2
        if not groups or wasted > WASTED_SCORES:
            groups.append([])
            wasted = 0
        groups[-1].append(number)
    return [_rows(members, spans, device) for members in groups]


def order_of_tokens(groups: Sequence[Rows], spans: Sequence[slice]) -> Tensor:
    """[tokens of all spans] for each token, in the order of the spans, its place among the groups' rows end to end."""
    places: list[Tensor] = [torch.empty(0, dtype=torch.int64)] * len(spans)
    offset = 0
    for group in groups:
        for number in group.members:
            places[number] = torch.arange(offset, offset + _size(spans[number]))
            offset += group.longest
    return torch.cat(places)


def from_rows(rows: Tensor) -> Tensor:
    """[B, H, L, D] to [B * L, H, D]."""
    return rows.transpose(1, 2).flatten(0, 1)


def _rows(members: list[int], spans: Sequence[slice], device: torch.device) -> Rows:
    longest = _size(spans[members[0]])
    starts = torch.tensor([spans[number].start for number in members])
    last = torch.tensor([max(spans[number].stop - 1, 0) for number in members])
    lift = torch.minimum(starts[:, None] + torch.arange(longest), last[:, None])
    return Rows(members, longest, lift.flatten().to(device))


def _size(span: slice) -> int:
    return span.stop - span.start
