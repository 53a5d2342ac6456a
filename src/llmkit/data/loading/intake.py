"""Encoded rows to what steps are made of, while every row that is left out is counted."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, TypeVar

from llmkit.data.collate import num_tokens
from llmkit.data.contract import Encoded
from llmkit.data.counts import RowCounts
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError

T = TypeVar("T")
_COUNTED = tuple(field.name for field in fields(RowCounts))


@dataclass(frozen=True, slots=True)
class Position:
    """Between two items of a run, as JSON can hold it. Loaders add what else they need to find the next row.

    Attributes:
        epoch: from 0.
        items: items that were handed out of the row that comes next; 0 but for rows that were divided.
    """

    epoch: int = 0
    items: int = 0

    @property
    def at_start(self) -> bool:
        """Nothing of the epoch was handed out."""
        return self.items == 0


P = TypeVar("P", bound=Position)


@dataclass(frozen=True, slots=True)
class Place(Generic[P]):
    """Where a row lies: the positions before and after it."""

    before: P
    after: P


@dataclass(frozen=True, slots=True)
class Unit(Generic[T, P]):
    """Items that are handed out together.

    Attributes:
        items: at least one.
        num_tokens: of all of them.
        counts: what became of the rows since the unit before.
        after: where the run stands when it has them.
    """

    items: tuple[T, ...]
    num_tokens: int
    counts: RowCounts
    after: P


def take_in(result: Encoded[T] | DataError, errors: RowErrors, counts: RowCounts) -> tuple[T, ...]:
    """Count a row and give what is trained of it; nothing when it is faulty.

    Raises:
        DataError: it is faulty, and such rows are not skipped, or too many were.
    """
    if isinstance(result, DataError):
        errors.handle(result)
        counts.rows += 1
        counts.skipped += 1
        return ()
    counts.add(result)
    return result.items


def read_items(
    results: Iterable[Encoded[T] | DataError], errors: RowErrors, counts: RowCounts, limit: int | None = None
) -> list[T]:
    """What is trained of the rows, at most `limit` items.

    Raises:
        DataError: a row is faulty, and such rows are not skipped, or too many were.
    """
    items: list[T] = []
    for result in results:
        items += take_in(result, errors, counts)
        if limit is not None and len(items) >= limit:
            break
    return items[:limit]


def single_units(results: Iterable[tuple[Place[P], Encoded[T] | DataError]], errors: RowErrors) -> Iterator[Unit[T, P]]:
    """A unit for each item.

    Raises:
        DataError: a row is faulty and not skipped, or a whole epoch was left out.
    """
    watch = EpochWatch()
    counts = RowCounts()
    for place, result in results:
        watch.enter(place.before, counts)
        items = take_in(result, errors, counts)
        done = place.before.items
        if done:
            # The row was counted when its first item was handed out.
            counts = RowCounts()
        for number, item in enumerate(items[done:], start=done + 1):
            watch.found = True
            after = place.after if number == len(items) else replace(place.before, items=number)
            yield Unit((item,), item_tokens(item, result), counts, after)
            counts = RowCounts()


class EpochWatch:
    """Stops a run that would go on reading for ever, because nothing of an epoch is left to train on.

    Attributes:
        found: an item was found since the epoch began, or the epoch is not watched from its start.
    """

    def __init__(self) -> None:
        self.found = True
        self._epoch = -1

    def enter(self, position: Position, counts: RowCounts) -> None:
        """A row of `position.epoch` comes next; `counts` are of the rows since the last item.

        Raises:
            DataError: the epoch before had nothing to train on.
        """
        if position.epoch == self._epoch:
            return
        if not self.found:
            raise nothing_left(counts)
        self.found = not position.at_start
        self._epoch = position.epoch


def nothing_left(counts: RowCounts) -> DataError:
    """The error of data of which every row was left out."""
    reasons = (
        (counts.dropped, "longer than data.max_length (raise it, or choose another data.overlength)"),
        (counts.untrained, "without a token that would be trained (see data.train_on)"),
        (counts.skipped, "faulty (skipped_rows.jsonl names each)"),
    )
    told = ", ".join(f"{count} {reason}" for count, reason in reasons if count)
    return DataError(f"Nothing is left to train on: every row was left out. Of {counts.rows} rows: {told}")


def item_tokens(item: Any, result: Encoded[Any] | DataError) -> int:
    """Tokens of one item of a row."""
    assert isinstance(result, Encoded)
    # An item that is no sample, such as a prompt, is all that there is of its row.
    return result.num_tokens if len(result.items) == 1 else num_tokens(item)


def add_counts(total: RowCounts, more: RowCounts) -> None:
    """Add `more` to `total`."""
    for name in _COUNTED:
        setattr(total, name, getattr(total, name) + getattr(more, name))
