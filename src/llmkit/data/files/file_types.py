"""Types of data files: what their names end in, and what opens them."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llmkit.data.files.compression import SUFFIXES as COMPRESSIONS
from llmkit.data.files.compression import check_packed, unpacked
from llmkit.data.files.local_file import Compression, LocalFile
from llmkit.data.files.plain_text import TextRows
from llmkit.errors import DataError

if TYPE_CHECKING:
    from llmkit.data.contract import Dataset, RowReader
    from llmkit.data.files.spans import Layout
    from llmkit.data.files.tables import Groups

FileType = Literal["jsonl", "json", "csv", "tsv", "parquet", "arrow", "text"]
SUFFIXES: dict[str, FileType] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".txt": "text",
    ".md": "text",
}
TABLES: tuple[FileType, ...] = ("parquet", "arrow")
KNOWN = f"{', '.join(SUFFIXES)}; text also packed, with {' or '.join(COMPRESSIONS)} behind"


class DataFile(NamedTuple):
    """A file and how to read it."""

    path: Path
    type: FileType
    compression: Compression | None = None

    @classmethod
    def of(cls, path: Path, file_type: FileType | None = None) -> "DataFile | None":
        """The file as its name says it is, or as `file_type` does; None when neither says."""
        compression = COMPRESSIONS.get(path.suffix.lower())
        suffix = path.with_suffix("").suffix if compression else path.suffix
        found = file_type or SUFFIXES.get(suffix.lower())
        return cls(path, found, compression) if found else None

    def look(self) -> LocalFile:
        """The file as it is now, with its packing checked.

        Raises:
            DataError: it cannot be read, is empty, or is not packed as its name says.
        """
        if self.compression and self.type in TABLES:
            raise DataError(f"{self.path}: a packed {self.type} file is not read; unpack it")
        file = LocalFile(self.path, self.compression)
        check_packed(file)
        return file


def open_rows(found: DataFile, text_rows: TextRows) -> "Dataset":
    """A file's rows, to be read in any order.

    Raises:
        DataError: it cannot be used.
    """
    from llmkit.data.files.spans import SpanRows
    from llmkit.data.files.tables import TableRows

    file = unpacked(found.look())
    if found.type in TABLES:
        return TableRows(file, _groups(found.type, file))
    return SpanRows(file, _layout(found.type, file, text_rows))


def open_reader(found: DataFile, file: LocalFile, text_rows: TextRows, position: Any = None) -> "RowReader":
    """A pass over a file's rows.

    Args:
        file: what `found.look()` gave.
        position: where to go on; None begins with the first row.
    Raises:
        DataError: it cannot be used.
    """
    from llmkit.data.files.spans import SpanReader
    from llmkit.data.files.tables import TableReader

    if found.type in TABLES:
        return TableReader(file, _groups(found.type, file), position)
    return SpanReader(file, _layout(found.type, file, text_rows), position)


def _groups(file_type: FileType, file: LocalFile) -> "Groups":
    if file_type == "parquet":
        from llmkit.data.files.parquet import ParquetGroups

        return ParquetGroups(file)
    from llmkit.data.files.arrow import open_arrow

    return open_arrow(file)


# Finding the list in an object of JSON reads all of it: once for a stream, and not once a pass.
@lru_cache(maxsize=256)
def _layout(file_type: FileType, file: LocalFile, text_rows: TextRows) -> "Layout":
    from llmkit.data.files.csv_table import CSVTable
    from llmkit.data.files.json_document import open_json
    from llmkit.data.files.jsonl import JSONLines
    from llmkit.data.files.plain_text import PlainText

    match file_type:
        case "jsonl":
            return JSONLines(file)
        case "json":
            return open_json(file)
        case "csv":
            return CSVTable(file, ",")
        case "tsv":
            return CSVTable(file, "\t")
    return PlainText(file, text_rows)
