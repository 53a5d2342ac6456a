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


def records(dataset: Dataset, formatter: Formatter) -> Iterator[Record]:
    """Every row of `dataset` as a record, in order."""
    for index in range(len(dataset)):
        yield formatter.to_record(dataset[index])
