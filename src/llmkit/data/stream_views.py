"""Some rows of a stream, and the rows of a data set, as a stream."""

from collections.abc import Callable
from typing import Any, Self

from llmkit.data.contract import Dataset, Fingerprinted, RowReader, Stream
from llmkit.data.row_views import fingerprint_of
from llmkit.errors import DataError
from llmkit.types import Record, Row

Chooses = Callable[[int], bool]
"""Whether the row with a number, counted from 0 over the whole stream, is one of those chosen."""


class DatasetStream:
    """The rows of a data set one after another. A position is the number of the next row."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        if isinstance(dataset, Fingerprinted):
            self.fingerprint = dataset.fingerprint

    def open(self, position: int | None = None) -> RowReader:
        """Begin with the row at `position`; see `contract.Stream`."""
        if position is not None and position > len(self._dataset):
            raise DataError(f"the position is row {position}, and there are {len(self._dataset)}; use the same data")
        return _DatasetReader(self._dataset, position or 0)


class _DatasetReader:
    def __init__(self, dataset: Dataset, position: int) -> None:
        self._dataset = dataset
        self.position = position

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row | Record:
        if self.position >= len(self._dataset):
            raise StopIteration
        self.position += 1
        return self._dataset[self.position - 1]

    def close(self) -> None:
        """There is nothing to let go of."""


class StreamView:
    """Rows of a stream that are chosen by their numbers, up to a last one.

    A row that cannot be read has a number too; its error is raised where the row is one of those chosen.
    """

    def __init__(
        self, stream: Stream, choice: str, chooses: Chooses | None = None, num_rows: int | None = None
    ) -> None:
        """
        Args:
            stream: the rows to choose from.
            choice: which are chosen, in words, for the fingerprint.
            chooses: decides; None takes every row.
            num_rows: how many rows of the stream to look at; None goes to its end.
        """
        self._stream = stream
        self._choice = choice
        self._chooses = chooses
        self._num_rows = num_rows
        if isinstance(stream, Fingerprinted):
            # An attribute and not a method: a view of rows that nobody can identify must not seem `Fingerprinted`.
            self.fingerprint = self._fingerprint

    def open(self, position: Any = None) -> RowReader:
        """Begin a pass; see `contract.Stream`."""
        inner, number = (position["inner"], position["row"]) if position is not None else (None, 0)
        return _ViewReader(self._stream.open(inner), number, self._chooses, self._num_rows)

    def _fingerprint(self) -> str:
        assert isinstance(self._stream, Fingerprinted)
        return fingerprint_of(self._stream.fingerprint(), self._choice)


class _ViewReader:
    def __init__(self, reader: RowReader, number: int, chooses: Chooses | None, num_rows: int | None) -> None:
        self._reader = reader
        self._number = number
        self._chooses = chooses
        self._num_rows = num_rows

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row | Record:
        while self._num_rows is None or self._number < self._num_rows:
            is_chosen = self._chooses is None or self._chooses(self._number)
            try:
                row = next(self._reader)
            except DataError:
                self._number += 1
                if is_chosen:
                    raise
                continue
            self._number += 1
            if is_chosen:
                return row
        raise StopIteration

    @property
    def position(self) -> dict[str, Any]:
        """The inner position and the number of the next row."""
        return {"inner": self._reader.position, "row": self._number}

    def close(self) -> None:
        """Close the inner reader."""
        self._reader.close()
