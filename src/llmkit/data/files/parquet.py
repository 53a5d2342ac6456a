"""A .parquet file, read with pyarrow, which comes with `datasets`."""

from pathlib import Path
from typing import Any

from llmkit.data.files.encoding import unreadable
from llmkit.errors import DataError
from llmkit.types import Row, Source


class ParquetTable:
    """Rows of a Parquet file. A row's line is its number in the file, from 1."""

    def __init__(self, path: Path) -> None:
        """Read the table.

        Raises:
            DataError: it is not a Parquet file, was cut off, or has no rows.
        """
        self._path = path
        self._table = _read_table(path)
        if not len(self._table):
            raise DataError(f"{path}: the table has no rows")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self._table):
            raise IndexError(index)
        (values,) = self._table.slice(index, 1).to_pylist()
        return Row(values, Source(str(self._path), index + 1))


def _read_table(path: Path) -> Any:
    import pyarrow
    from pyarrow import parquet

    try:
        if not path.stat().st_size:
            raise DataError(f"{path}: the file is empty")
        return parquet.read_table(path, memory_map=True)
    except pyarrow.ArrowInvalid as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path}: not a whole Parquet file; it may have been cut off: {reason}") from None
    except OSError as error:
        raise unreadable(path, error) from None
