"""The figures of a set, gathered row by row in little memory."""

from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from llmkit.data.contract import Encoded
from llmkit.data.counts import RowCounts
from llmkit.data.inspecting.duplicates import Repeats, RowDigests
from llmkit.data.inspecting.faults import Group, Groups
from llmkit.data.inspecting.histogram import Bin, Lengths, bins, summarize_lengths
from llmkit.data.inspecting.measuring import Measured, RoleCounts
from llmkit.data.packing import best_fit_decreasing
from llmkit.errors import DataError


@dataclass(frozen=True)
class Packing:
    """What `batch.packing=best_fit` would make of the rows: bins of `capacity` tokens.

    Attributes:
        num_longer: rows, or pairs, that are longer than a bin and stand alone in a larger one.
        fill: share of the bins' room that holds tokens.
    """

    capacity: int
    num_bins: int
    num_longer: int
    fill: float


@dataclass(frozen=True)
class Figures:
    """What is known about the rows that were read.

    Attributes:
        counts: of rows and tokens, as a run counts them; `skipped` are the faulty ones.
        kept: rows that are trained on, whole or in part.
        roles: counts by role.
        lengths: of the sequences that are trained on, the sides of a pair apart; None when there are none.
        histogram: of the same.
        tokens_cut: tokens that were cut off, or were in windows of a split row that train nothing.
        turns: number of rows by how many answers of the assistant they have.
        duplicates: rows that become the same tokens.
        answered_differently: rows with the same prompt and different answers.
        packing: None when there is nothing to pack.
        features: rows by what they have besides plain messages.
        columns: rows by extra column.
        not_as_they_were: rows that are left out or changed, by reason.
    """

    counts: RowCounts
    kept: int
    roles: dict[str, RoleCounts]
    lengths: Lengths | None
    histogram: list[Bin]
    tokens_cut: int
    turns: dict[int, int]
    duplicates: Repeats
    answered_differently: Repeats
    packing: Packing | None
    features: dict[str, int]
    columns: dict[str, int]
    not_as_they_were: list[Group]

    @property
    def trained_share(self) -> float:
        """Share of the tokens that carry loss."""
        return self.counts.trained_tokens / self.counts.tokens if self.counts.tokens else 0.0

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "trained_share": self.trained_share}


class Tally:
    """Takes what becomes of each row, in order."""

    def __init__(self, capacity: int | None) -> None:
        """`capacity`: tokens of a bin when rows are packed; None for rows that are not."""
        self._capacity = capacity
        self._counts = RowCounts()
        self._roles: dict[str, RoleCounts] = {}
        self._lengths, self._item_lengths = array("q"), array("q")
        self._digests = RowDigests()
        self._turns: Counter[int] = Counter()
        self._features: Counter[str] = Counter()
        self._columns: Counter[str] = Counter()
        self._groups = Groups()
        self._tokens_cut = 0

    def add(self, row: Encoded[Measured] | DataError) -> None:
        """Count a row."""
        if isinstance(row, DataError):
            self._counts.rows += 1
            self._counts.skipped += 1
            self._groups.add_fault(str(row))
            return
        self._counts.add(row)
        (measured,) = row.items
        self._digests.add(measured.tokens_digest, measured.prompt_digest, measured.answer_digest, measured.source)
        self._lengths.extend(measured.lengths)
        self._item_lengths.extend(measured.item_lengths)
        for role, counts in measured.roles.items():
            self._roles.setdefault(role, RoleCounts()).add(counts)
        self._turns[measured.num_turns] += 1
        self._features.update(measured.features)
        self._columns.update(measured.columns)
        if row.outcome != "kept":
            self._groups.add(row.outcome, REASONS[row.outcome], str(measured.source))
        if row.outcome in ("truncated", "split") and measured.whole_tokens:
            self._tokens_cut += max(0, measured.whole_tokens - sum(measured.lengths))

    def figures(self) -> Figures:
        """The figures of the rows so far."""
        lengths = np.array(self._lengths, dtype=np.int64)
        counts = self._counts
        return Figures(
            counts=counts,
            kept=counts.rows - counts.skipped - counts.dropped - counts.untrained,
            roles=self._roles,
            lengths=summarize_lengths(lengths) if len(lengths) else None,
            histogram=bins(lengths),
            tokens_cut=self._tokens_cut,
            turns=dict(sorted(self._turns.items())),
            duplicates=self._digests.same_tokens(),
            answered_differently=self._digests.same_prompt_other_answer(),
            packing=self._packing(),
            features=dict(self._features.most_common()),
            columns=dict(self._columns.most_common()),
            not_as_they_were=list(self._groups),
        )

    def _packing(self) -> Packing | None:
        lengths = np.array(self._item_lengths, dtype=np.int64)
        if not len(lengths) or self._capacity is None:
            return None
        bins = best_fit_decreasing(lengths, self._capacity)
        tokens = np.add.reduceat(lengths[bins.items], bins.starts)
        fill = tokens.sum() / np.maximum(tokens, self._capacity).sum()
        return Packing(self._capacity, len(tokens), int((lengths > self._capacity).sum()), float(fill))


REASONS = {
    "dropped": "longer than data.max_length",
    "untrained": "no token would be trained",
    "truncated": "longer than data.max_length, cut",
    "split": "longer than data.max_length, divided",
}
