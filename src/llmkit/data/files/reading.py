"""Open data files as one data set."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from llmkit.data.contract import Dataset
from llmkit.data.files.csv_table import CSVTable
from llmkit.data.files.find import find_files
from llmkit.data.files.json_array import open_json
from llmkit.data.files.jsonl import JSONLines
from llmkit.data.files.parquet import ParquetTable
from llmkit.types import Record, Row

READERS = {".jsonl": JSONLines, ".json": open_json, ".csv": CSVTable, ".parquet": ParquetTable}


def open_path(path: str, split: str | None, limit: int | None) -> Dataset:
    """Rows of a file, or of a directory's files one after the other.

    Args:
        path: file or directory; `~` is the home directory.
        split: which files of a directory; see `find_files`.
        limit: most rows, from the start; None reads all.
    Raises:
        DataError: a file is missing or cannot be used.
    """
    files = find_files(Path(path).expanduser(), split)
    parts = [READERS[file.suffix.lower()](file) for file in files]
    dataset = parts[0] if len(parts) == 1 else Concatenation(parts)
    return dataset if limit is None else FirstRows(dataset, limit)


class Concatenation:
    """Several data sets, one after the other."""

    def __init__(self, parts: Sequence[Dataset]) -> None:
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Row | Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self._parts[part][index - (self._ends[part - 1] if part else 0)]


class FirstRows:
    """The first `limit` rows of a data set."""

    def __init__(self, dataset: Dataset, limit: int) -> None:
        self._dataset = dataset
        self._length = min(limit, len(dataset))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Row | Record:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return self._dataset[index]
