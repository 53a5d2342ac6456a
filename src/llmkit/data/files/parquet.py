"""Parquet files, read with pyarrow, which comes with `datasets`."""

from collections.abc import Iterator
from functools import lru_cache

import pyarrow
from pyarrow import parquet

from llmkit.data.files.local_file import LocalFile, Stamp
from llmkit.data.files.tables import reading_table
from llmkit.errors import DataError

BATCH_ROWS = 1024
BUFFER_BYTES = 1 << 20


class ParquetGroups:
    """The row groups of a Parquet file."""

    def __init__(self, file: LocalFile) -> None:
        """Read the table's footer.

        Raises:
            DataError: it is not a Parquet file, or was cut off.
        """
        self._file = file
        if not file.stamp.size:
            raise DataError(f"{file.name}: the file is empty")
        with reading_table(file, "Parquet"):
            metadata = self._table().metadata
            self.sizes = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]

    def read(self, group: int) -> pyarrow.Table:
        """All rows of a row group."""
        self._file.check()
        with reading_table(self._file, "Parquet"):
            return self._table().read_row_group(group, use_threads=False)

    def batches(self, group: int) -> Iterator[pyarrow.RecordBatch]:
        """The rows of a row group, without reading all of it at once."""
        self._file.check()
        batches = self._table().iter_batches(BATCH_ROWS, row_groups=[group], use_threads=False)
        while True:
            with reading_table(self._file, "Parquet"):
                batch = next(batches, None)
            if batch is None:
                return
            yield batch

    def _table(self) -> parquet.ParquetFile:
        return _opened(str(self._file.path), self._file.stamp)


@lru_cache(maxsize=16)
def _opened(path: str, stamp: Stamp) -> parquet.ParquetFile:
    # With a buffer, a column is read as far as it is needed and not to the end of its group.
    return parquet.ParquetFile(path, buffer_size=BUFFER_BYTES, pre_buffer=False)
