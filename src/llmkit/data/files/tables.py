"""Tables that are stored in groups of rows (Parquet, Arrow): a group is read when one of its rows is."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Protocol, Self

from llmkit.data.files.local_file import LocalFile, unreadable
from llmkit.errors import DataError, SourceError
from llmkit.types import Row, Source

if TYPE_CHECKING:
    import pyarrow

CACHED_BYTES = 128 << 20
"""Groups that a data set keeps in memory; at least the last one that was read."""
PAGE_ROWS = 64
"""Rows that become Python objects together while rows are read in order."""


class Groups(Protocol):
    """A table in groups. It holds nothing open and can be pickled.

    Attributes:
        sizes: number of rows of each group.
    """

    sizes: list[int]

    def read(self, group: int) -> "pyarrow.Table":
        """All rows of a group."""
        ...

    def batches(self, group: int) -> "Iterator[pyarrow.RecordBatch]":
        """The rows of a group, a few thousand at a time."""
        ...


@contextmanager
def reading_table(file: LocalFile, what: str) -> Iterator[None]:
    """Turn the errors of pyarrow into a `DataError`; `what` is `Parquet`."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, ValueError, OSError) as error:
        # pyarrow raises OSError without a number for what it cannot read in a file that the system does read.
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(file.name, error) from None
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{file.name}: not a whole {what} file; it may have been cut off: {reason}") from None


class TableRows:
    """The rows of a table as a data set. A row's line is its number in the file, from 1."""

    def __init__(self, file: LocalFile, groups: Groups) -> None:
        """
        Raises:
            DataError: the table has no rows.
        """
        self._file = file
        self._groups = groups
        self._ends = list(accumulate(groups.sizes))
        if not len(self):
            raise DataError(f"{file.name}: the table has no rows")
        self._cache: OrderedDict[int, pyarrow.Table] = OrderedDict()
        self._page = range(0)
        self._page_rows: list[dict[str, Any] | DataError] = []
        self._last = -1

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            self._file.check()
            if index not in self._page:
                self._turn_to(index)
        except DataError as error:
            raise SourceError(str(error)) from None
        self._last = index
        values = self._page_rows[index - self._page.start]
        if isinstance(values, DataError):
            raise values
        return Row(values, Source(self._file.name, index + 1))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cache": OrderedDict(), "_page": range(0), "_page_rows": []}

    def _turn_to(self, index: int) -> None:
        group = bisect_right(self._ends, index)
        first = self._ends[group] - self._groups.sizes[group]
        # Rows in random order would pay for a whole page each.
        count = PAGE_ROWS if index == self._last + 1 else 1
        page = range(index, min(index + count, self._ends[group]))
        self._page_rows = _values(self._group(group).slice(index - first, len(page)), self._file.name, index + 1)
        self._page = page

    def _group(self, group: int) -> "pyarrow.Table":
        if group in self._cache:
            self._cache.move_to_end(group)
            return self._cache[group]
        table = self._groups.read(group)
        self._cache[group] = table
        while len(self._cache) > 1 and sum(cached.nbytes for cached in self._cache.values()) > CACHED_BYTES:
            self._cache.popitem(last=False)
        return table


class TableReader:
    """A pass over the rows of a table, a batch at a time."""

    def __init__(self, file: LocalFile, groups: Groups, position: Any = None) -> None:
        """Begin, or go on at a position that a reader of the same file gave."""
        self._file = file
        self._num_rows: int = position or 0
        self._is_empty = not sum(groups.sizes)
        self._rows = self._read(groups)
        self._fault: SourceError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        """The next row. A batch that cannot be read is a `SourceError`, at each further call too."""
        if self._fault is not None:
            raise self._fault
        try:
            values = next(self._rows, None)
            if self._is_empty:
                raise DataError(f"{self._file.name}: the table has no rows")
        except DataError as error:
            self._fault = SourceError(str(error))
            raise self._fault from None
        if values is None:
            raise StopIteration
        self._num_rows += 1
        if isinstance(values, DataError):
            raise values
        return Row(values, Source(self._file.name, self._num_rows))

    @property
    def position(self) -> int:
        """Number of rows before the next one."""
        return self._num_rows

    def close(self) -> None:
        """Let go of the batch that is being read."""
        self._rows = iter(())

    def _read(self, groups: Groups) -> "Iterator[dict[str, Any] | DataError]":
        skipped, line = self._num_rows, 1
        for group, size in enumerate(groups.sizes):
            if skipped >= size:
                skipped, line = skipped - size, line + size
                continue
            for batch in groups.batches(group):
                for start in range(skipped, batch.num_rows, PAGE_ROWS):
                    yield from _values(batch.slice(start, PAGE_ROWS), self._file.name, line + start)
                skipped, line = max(0, skipped - batch.num_rows), line + batch.num_rows


def _values(table: "pyarrow.Table | pyarrow.RecordBatch", name: str, line: int) -> list[dict[str, Any] | DataError]:
    """Rows as Python objects; an error for a row that holds what Python cannot, such as text that is not UTF-8."""
    import pyarrow

    try:
        return table.to_pylist()
    except (ValueError, OverflowError, pyarrow.ArrowException) as error:
        if table.num_rows == 1:
            return [DataError(f"{name}:{line}: the row cannot be read: {error}")]
    return [values for row in range(table.num_rows) for values in _values(table.slice(row, 1), name, line + row)]
