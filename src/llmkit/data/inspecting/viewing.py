"""One row as it is looked at: its source, its tokens with their pieces, weights and roles, and what became of it."""

import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from llmkit.data.contract import Encoded, Sized, to_record
from llmkit.data.every_row import every_row, row_at
from llmkit.data.inspecting.faults import split_place
from llmkit.data.inspecting.labelling import Window, left_out, windows
from llmkit.data.inspecting.measuring import RoleCounts, count_roles
from llmkit.data.inspecting.subject import Subject
from llmkit.data.inspecting.tally import REASONS
from llmkit.errors import ConfigError, DataError
from llmkit.types import Record, Row


@dataclass(frozen=True, slots=True)
class Token:
    """One token.

    Attributes:
        piece: the text that it adds; a character of several tokens is given to the last of them.
        weight: its loss weight.
        role: who says it.
        message: number of its message, from 1; 0 for the template's.
        is_special: whether it is a control token.
    """

    id: int
    piece: str
    weight: float
    role: str
    message: int
    is_special: bool


@dataclass(frozen=True)
class SequenceView:
    """One sequence of a row.

    Attributes:
        name: `chosen`, `rejected` or `prompt`; empty for an ordinary sample.
        num_cut_before: tokens that were cut off before it.
        num_cut_after: tokens that were cut off after it.
        fault: why messages could not be told apart; empty when they were.
    """

    name: str
    tokens: list[Token]
    num_cut_before: int = 0
    num_cut_after: int = 0
    fault: str = ""

    @property
    def num_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(token.weight != 0 for token in self.tokens)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON; one list for each property of the tokens."""
        return {
            "name": self.name,
            "num_tokens": len(self.tokens),
            "num_trained": self.num_trained,
            "num_cut_before": self.num_cut_before,
            "num_cut_after": self.num_cut_after,
            "token_ids": [token.id for token in self.tokens],
            "pieces": [token.piece for token in self.tokens],
            "loss_weights": [token.weight for token in self.tokens],
            "roles": [token.role for token in self.tokens],
            "messages": [token.message for token in self.tokens],
            "fault": self.fault,
        }


@dataclass(frozen=True)
class RowView:
    """One row.

    Attributes:
        number: of the row in the set, from 1.
        source: its file and line.
        outcome: `kept`, `dropped`, `untrained`, `truncated`, `split`, or `faulty`.
        reason: why it is not kept as it is; empty when it is.
        sequences: what is trained on; of a row that is left out, what it would be.
        roles: counts by role over all sequences.
        raw: the row as it was read.
        record: the row in canonical form; None when that failed.
    """

    number: int
    source: str
    outcome: str
    reason: str = ""
    sequences: list[SequenceView] = field(default_factory=list)
    roles: dict[str, RoleCounts] = field(default_factory=dict)
    raw: dict[str, Any] | None = None
    record: Record | None = None

    @property
    def num_tokens(self) -> int:
        """Tokens of all sequences."""
        return sum(len(sequence.tokens) for sequence in self.sequences)

    @property
    def num_trained(self) -> int:
        """Those that carry loss."""
        return sum(sequence.num_trained for sequence in self.sequences)

    def to_dict(self, *, raw: bool) -> dict[str, Any]:
        """As plain values for JSON, with the row as it was read and its record if they are wanted."""
        shown = {
            "row": self.number,
            "source": self.source,
            "outcome": self.outcome,
            "reason": self.reason,
            "num_tokens": self.num_tokens,
            "num_trained": self.num_trained,
            "roles": {role: asdict(counts) for role, counts in self.roles.items()},
            "sequences": [sequence.to_dict() for sequence in self.sequences],
        }
        if raw:
            shown["raw"] = self.raw
            shown["record"] = asdict(self.record) if self.record is not None else None
        return shown


def choose_rows(subject: Subject, numbers: Sequence[int], count: int, *, sample: bool) -> list[int]:
    """Numbers of the rows to show, from 1.

    Args:
        subject: the data.
        numbers: rows that were asked for; they come first in importance.
        count: how many to show when no number was given.
        sample: draw them by the run's seed instead of taking the first ones.
    Raises:
        ConfigError: there is no such row, or rows of a stream are to be drawn.
    """
    total = subject.num_rows
    if numbers:
        for number in numbers:
            if total is not None and number > total:
                raise ConfigError(f"--row {number}: the data set has {total:,} rows")
        return list(dict.fromkeys(numbers))
    if not sample:
        return list(range(1, (count if total is None else min(count, total)) + 1))
    if total is None:
        raise ConfigError("--sample: rows of a stream cannot be drawn at random; leave it out to see the first ones")
    return sorted(random.Random(subject.run.seed).sample(range(1, total + 1), min(count, total)))


def view_rows(subject: Subject, numbers: Sequence[int]) -> list[RowView]:
    """The rows with these numbers, in this order.

    Raises:
        ConfigError: a stream ends before one of them.
    """
    if isinstance(subject.data, Sized):
        return [view_row(subject, number, row_at(subject.data, number - 1)) for number in numbers]
    found = _pick(every_row(subject.data, max(numbers, default=0)), set(numbers))
    missing = [number for number in numbers if number not in found]
    if missing and len(numbers) > len(missing):
        numbers = [number for number in numbers if number in found]
    elif missing:
        raise ConfigError(f"The stream has no row {missing[0]}")
    return [view_row(subject, number, found[number]) for number in numbers]


def _pick(stream: Iterable[Row | Record | DataError], numbers: set[int]) -> dict[int, Row | Record | DataError]:
    return {number: row for number, row in enumerate(stream, start=1) if number in numbers}


def view_row(subject: Subject, number: int, row: Row | Record | DataError) -> RowView:
    """One row, encoded as the run does it."""
    if isinstance(row, DataError):
        place, reason = split_place(str(row))
        return RowView(number, place, "faulty", reason)
    raw = dict(row.values) if isinstance(row, Row) else None
    try:
        record = to_record(row, subject.formatter)
    except DataError as error:
        return RowView(number, str(row.source), "faulty", split_place(str(error))[1], raw=raw)
    (encoded,) = subject.encoder([record])
    (wholes,) = subject.labeller([record])
    if isinstance(encoded, Encoded) and encoded.items:
        found = windows(wholes, encoded, subject.run.data)
    else:
        found = left_out(wholes, record)
    is_faulty = isinstance(encoded, DataError)
    return RowView(
        number,
        str(record.source),
        outcome="faulty" if is_faulty else encoded.outcome,
        reason=split_place(str(encoded))[1] if is_faulty else REASONS.get(encoded.outcome, ""),
        sequences=[_sequence(subject, window) for window in found],
        roles=count_roles(found),
        raw=raw,
        record=record,
    )


def _sequence(subject: Subject, window: Window) -> SequenceView:
    sample = window.sample
    tokenizer = subject.codec.tokenizer
    special = set(tokenizer.all_special_ids) | {
        token_id for token_id, token in tokenizer.added_tokens_decoder.items() if token.special
    }
    tokens = [
        Token(token_id, piece, weight, role, message, token_id in special)
        for token_id, piece, weight, role, message in zip(
            sample.token_ids,
            subject.codec.pieces(sample.token_ids),
            sample.loss_weights,
            window.roles,
            window.messages,
            strict=True,
        )
    ]
    return SequenceView(window.whole.name, tokens, window.num_cut_before, window.num_cut_after, window.whole.fault)
