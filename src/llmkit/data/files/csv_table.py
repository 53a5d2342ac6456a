"""A .csv file with a header line."""

import csv
import io
from pathlib import Path

from llmkit.data.files.encoding import read_text
from llmkit.errors import DataError
from llmkit.types import Row, Source


class CSVTable:
    """Rows of a comma-separated file, all in memory; every value is text, an empty cell is ''.

    A row's line is the one on which it begins, so cells may hold line breaks.
    """

    def __init__(self, path: Path) -> None:
        """Read the whole file.

        Raises:
            DataError: it is not UTF-8 text, its header has an empty or repeated name, it has no rows, or a row has
                more or fewer cells than the header; names file:line.
        """
        self._path = path
        self._rows: list[dict[str, str]] = []
        self._lines: list[int] = []
        text = read_text(path)
        # A cell may be as long as the file; the limit belongs to the csv module, so it is put back.
        former_limit = csv.field_size_limit(max(len(text), 131072))
        try:
            self._read(text)
        except csv.Error as error:
            raise DataError(f"{path}: not a CSV file: {error}") from None
        finally:
            csv.field_size_limit(former_limit)
        if not self._rows:
            raise DataError(f"{path}: no rows; a .csv file needs a header line and at least one row")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self._rows):
            raise IndexError(index)
        return Row(self._rows[index], Source(str(self._path), self._lines[index]))

    def _read(self, text: str) -> None:
        reader = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = _header(self._path, next(reader, []))
        line = reader.line_num + 1
        for cells in reader:
            if cells:
                self._rows.append(_row(self._path, line, header, cells))
                self._lines.append(line)
            line = reader.line_num + 1


def _header(path: Path, names: list[str]) -> list[str]:
    names = [name.strip() for name in names]
    if not names:
        raise DataError(f"{path}:1: no header line; a .csv file must name its columns in the first line")
    if "" in names:
        raise DataError(f"{path}:1: column {names.index('') + 1} of the header has no name")
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise DataError(f"{path}:1: the header names column '{repeated[0]}' twice")
    return names


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> dict[str, str]:
    if len(cells) != len(header):
        raise DataError(
            f"{path}:{line}: {len(cells)} cells, but the header has {len(header)} columns ({', '.join(header)}); "
            "put a cell that holds a comma, a quote or a line break in double quotes"
        )
    return dict(zip(header, cells, strict=True))
