"""What data-set and formatter plugins promise."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from llmkit.types import Record, Row


class Dataset(Protocol):
    """Rows that can be read again from any position. `build(config) -> Dataset` makes one."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def __getitem__(self, index: int) -> Row:
        """Row `index`, from 0.

        Raises:
            IndexError: there is no such row; negative numbers do not count from the end.
            DataError: the row cannot be read; names file:line.
        """
        ...


class Formatter(Protocol):
    """Turns a foreign row into a record and back. `build(config) -> Formatter` makes one."""

    def score(self, rows: Sequence[Row]) -> float:
        """How well the first rows fit: 0 not at all, 1 beyond doubt."""
        ...

    def to_record(self, row: Row) -> Record:
        """Read one row.

        Raises:
            DataError: names the row's file:line, what is missing and the way out.
        """
        ...

    def from_record(self, record: Record) -> Mapping[str, Any]:
        """Write a record as a row of this format.

        Raises:
            DataError: this format cannot hold what the record has.
        """
        ...


class Chooser(Protocol):
    """A formatter that has to see rows before it knows how to read them."""

    def choose(self, rows: Sequence[Row]) -> Formatter:
        """The formatter for these rows.

        Raises:
            DataError: none fits, or several do; names them and the option to set.
        """
        ...


def choose_formatter(formatter: Formatter, dataset: Dataset, num_rows: int = 16) -> Formatter:
    """The formatter to read `dataset` with: itself, or the one that it chooses by the first `num_rows` rows."""
    choose = getattr(formatter, "choose", None)
    if choose is None:
        return formatter
    return choose([dataset[index] for index in range(min(num_rows, len(dataset)))])


def records(dataset: Dataset, formatter: Formatter) -> Iterator[Record]:
    """Every row of `dataset` as a record, in order."""
    formatter = choose_formatter(formatter, dataset)
    for index in range(len(dataset)):
        yield formatter.to_record(dataset[index])
