"""Stores of one row per sequence: JSON Lines and Parquet, read with the formatter `tokens`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from llmkit.data.contract import Dataset, Formatter
from llmkit.data.files.file_types import DataFile, FileType, open_rows
from llmkit.data.formatters import tokens
from llmkit.data.preparing.progress import with_progress
from llmkit.data.stores.checking import checked
from llmkit.data.stores.contract import Tokens
from llmkit.data.stores.writing import whole_files
from llmkit.types import Record, Row, Sample, Source

if TYPE_CHECKING:
    import pyarrow

GROUP_ROWS = 1000


class RowSequences:
    """The rows of a file as sequences."""

    def __init__(self, path: Path, rows: Dataset, formatter: Formatter) -> None:
        self.files: Sequence[Path] = [path]
        self._rows = rows
        self._formatter = formatter
        # Windows over long rows ask for the same one again and again.
        self._last: tuple[int, Sample] | None = None
        self._lengths: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each sequence; found when they are first asked for."""
        if self._lengths is None:
            self._lengths = self._find_lengths()
        return self._lengths

    def _find_lengths(self) -> np.ndarray:
        """Read every row."""
        numbers = with_progress(range(len(self)), len(self), f"Counting the tokens of {self.files[0]}")
        return np.array([len(self._sample(number).token_ids) for number in numbers], np.int64)

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens `[start, end)` of a row; the whole row is parsed for it."""
        sample = self._sample(index)
        weights = np.array(sample.loss_weights[start:end], np.float64)
        return checked(np.array(sample.token_ids[start:end], np.int64), {"loss_weights": weights}, sample.source)

    def source(self, index: int) -> Source:
        """The row's line in its file."""
        return self._sample(index).source

    def _sample(self, index: int) -> Sample:
        if self._last is None or self._last[0] != index:
            row = self._rows[index]
            assert isinstance(row, Row)
            sample = self._formatter.to_record(row).tokens
            assert sample is not None
            self._last = index, sample
        return self._last[1]


class ParquetSequences(RowSequences):
    """The rows of a Parquet file; their lengths are found without reading the tokens into Python."""

    def __init__(self, path: Path, rows: Dataset, formatter: Formatter, column: str) -> None:
        super().__init__(path, rows, formatter)
        self._column = column

    def _find_lengths(self) -> np.ndarray:
        from pyarrow import compute, parquet

        with parquet.ParquetFile(self.files[0]) as file:
            names = file.schema_arrow.names
            is_list = self._column in names and str(file.schema_arrow.field(self._column).type).startswith("list")
            if not is_list or tokens.Config().attention_column in names:
                return super()._find_lengths()
            groups = (file.read_row_group(group, [self._column]) for group in range(file.num_row_groups))
            counts = [compute.call_function("list_value_length", [group[self._column]]) for group in groups]
        if any(count.null_count for count in counts):
            return super()._find_lengths()
        return np.concatenate([count.to_numpy() for count in counts]).astype(np.int64)


class _RowStore:
    """What both formats share."""

    suffixes: Sequence[str]
    file_type: FileType

    def __init__(self, token_ids_column: str) -> None:
        self._column = token_ids_column
        self._formatter = tokens.build(tokens.Config(token_ids_column=token_ids_column))

    def open(self, path: Path) -> RowSequences:
        """Open a file."""
        return RowSequences(path, self._rows(path), self._formatter)

    def _rows(self, path: Path) -> Dataset:
        return open_rows(DataFile(path, self.file_type), "line")

    def _row(self, sample: Sample) -> dict[str, Any]:
        return dict(self._formatter.from_record(Record((), sample.source, tokens=sample)))


class JSONLStore(_RowStore):
    """The store `jsonl`."""

    suffixes = (".jsonl",)
    file_type = "jsonl"

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write a line for each sample."""
        with whole_files(path) as partial, partial.open("w", encoding="utf-8") as file:
            for sample in samples:
                file.write(json.dumps(self._row(sample), separators=(",", ":")) + "\n")


class ParquetStore(_RowStore):
    """The store `parquet`."""

    suffixes = (".parquet",)
    file_type = "parquet"

    def open(self, path: Path) -> RowSequences:
        """Open a file."""
        return ParquetSequences(path, self._rows(path), self._formatter, self._column)

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write a row for each sample, in groups of a thousand."""
        from pyarrow import parquet

        schema = self._schema()
        with whole_files(path) as partial, parquet.ParquetWriter(partial, schema) as writer:
            for group in _groups(samples):
                writer.write_table(self._table(group, schema))

    def _schema(self) -> "pyarrow.Schema":
        import pyarrow

        return pyarrow.schema(
            [(self._column, pyarrow.list_(pyarrow.int32())), ("loss_weights", pyarrow.list_(pyarrow.float64()))]
        )

    def _table(self, samples: Sequence[Sample], schema: "pyarrow.Schema") -> "pyarrow.Table":
        import pyarrow

        columns = [[sample.token_ids for sample in samples], [sample.loss_weights for sample in samples]]
        return pyarrow.table(dict(zip(schema.names, columns, strict=True)), schema)


def _groups(samples: Iterable[Sample]) -> Iterator[list[Sample]]:
    remaining = iter(samples)
    while group := list(islice(remaining, GROUP_ROWS)):
        yield group
