"""Arrow files (.arrow, .feather) in both of their forms, read with pyarrow, which comes with `datasets`."""

from collections.abc import Iterator
from functools import lru_cache

import pyarrow
from pyarrow import ipc

from llmkit.data.files.local_file import LocalFile, Stamp
from llmkit.data.files.tables import Groups, reading_table
from llmkit.errors import DataError

MAGIC = b"ARROW1"
WHAT = "Arrow"


def open_arrow(file: LocalFile) -> Groups:
    """The batches of an Arrow file.

    Raises:
        DataError: it is not one, or was cut off.
    """
    if not file.stamp.size:
        raise DataError(f"{file.name}: the file is empty")
    is_file = file.head(len(MAGIC)) == MAGIC
    return ArrowFile(file) if is_file else ArrowStream(file)


class ArrowFile:
    """The form with an index at its end."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        with reading_table(file, WHAT):
            table = self._table()
            self.sizes = [table.get_batch(batch).num_rows for batch in range(table.num_record_batches)]

    def read(self, group: int) -> pyarrow.Table:
        """All rows of a batch."""
        self._file.check()
        with reading_table(self._file, WHAT):
            return pyarrow.Table.from_batches([self._table().get_batch(group)])

    def batches(self, group: int) -> Iterator[pyarrow.RecordBatch]:
        """The batch."""
        yield from self.read(group).to_batches()

    def _table(self) -> ipc.RecordBatchFileReader:
        return _opened_file(str(self._file.path), self._file.stamp)


class ArrowStream:
    """The form that `datasets` writes: batches one after another. To go back, it is read from the start again."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file
        self._open()
        self.sizes: list[int] = []
        end = 0
        with reading_table(file, WHAT):
            while (batch := self._next_batch()) is not None:
                self.sizes.append(batch.num_rows)
                end = self._source.tell()
        # A stream that breaks off between two batches looks whole: only the mark of its end is missing.
        if self.sizes and end == file.stamp.size:
            raise DataError(f"{file.name}: not a whole Arrow file; it may have been cut off: no mark of its end")

    def read(self, group: int) -> pyarrow.Table:
        """All rows of a batch."""
        self._file.check()
        if self._reader is None or group < self._next:
            self._open()
        with reading_table(self._file, WHAT):
            while self._next < group:
                self._next_batch()
            batch = self._next_batch()
        assert batch is not None, "the file is as it was when its batches were counted"
        return pyarrow.Table.from_batches([batch])

    def batches(self, group: int) -> Iterator[pyarrow.RecordBatch]:
        """The batch."""
        yield from self.read(group).to_batches()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_reader": None, "_source": None}

    def _open(self) -> None:
        self._next = 0
        with reading_table(self._file, WHAT):
            self._source = pyarrow.memory_map(str(self._file.path))
            self._reader: ipc.RecordBatchStreamReader | None = ipc.open_stream(self._source)

    def _next_batch(self) -> pyarrow.RecordBatch | None:
        assert self._reader is not None, "opened by whoever calls"
        self._next += 1
        try:
            return self._reader.read_next_batch()
        except StopIteration:
            return None


@lru_cache(maxsize=16)
def _opened_file(path: str, stamp: Stamp) -> ipc.RecordBatchFileReader:
    return ipc.open_file(pyarrow.memory_map(path))
