"""A table with a header line and cells between commas (.csv) or tabs (.tsv)."""

import csv
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

from llmkit.data.files.encoding import decode, text_start
from llmkit.data.files.local_file import LocalFile, reading
from llmkit.data.files.spans import Place, Span
from llmkit.errors import DataError

NAMES = {",": "comma", ";": "semicolon", "\t": "tab"}


class CSVTable:
    """Rows of a table; every value is text, an empty cell is ''.

    A row's line is the one on which it begins, so cells may hold line breaks.
    """

    no_rows = "no rows; a table needs a header line and at least one row"

    def __init__(self, file: LocalFile, delimiter: str) -> None:
        """Read the header.

        Raises:
            DataError: the file is not text, or its header has an empty or repeated name.
        """
        self._name = file.name
        self._delimiter = delimiter
        begin = Place(text_start(file), 1)
        with file.open(begin.offset) as stream, reading(file):
            span = next(self.spans(stream, begin), None)
        if span is None:
            raise DataError(f"{file.name}: no header line, only blank lines")
        self.start = span.end
        self._header = self._checked(self._cells(span), span.line)

    def spans(self, stream: BinaryIO, place: Place) -> Iterator[Span]:
        """Every record that is not a blank line."""
        for first in stream:
            raw = self._whole(first, stream) if b'"' in first else first
            span = Span(*place, raw)
            if raw.strip(b"\r\n"):
                yield span
            place = span.end

    def parse(self, span: Span) -> dict[str, str]:
        """The cells by the names of their columns."""
        cells = self._cells(span)
        if len(cells) != len(self._header):
            raise DataError(
                f"{self._name}:{span.line}: {len(cells)} cells, but the header has {len(self._header)} columns "
                f"({', '.join(self._header)}); put a cell that holds a {NAMES[self._delimiter]}, a quote or a line "
                "break in double quotes"
            )
        return dict(zip(self._header, cells, strict=True))

    def _whole(self, first: bytes, stream: BinaryIO) -> bytes:
        """The record that begins with a line: as many lines as the csv module needs."""
        lines = [first]

        def texts() -> Iterator[str]:
            # Latin-1 makes of each byte a character; quotes and delimiters are single bytes in UTF-8 too.
            yield first.decode("latin-1")
            for raw in stream:
                lines.append(raw)
                yield raw.decode("latin-1")

        # What is wrong with the record, `parse` tells.
        with _long_cells(), suppress(csv.Error):
            next(csv.reader(texts(), delimiter=self._delimiter), None)
        return b"".join(lines)

    def _cells(self, span: Span) -> list[str]:
        text = decode(self._name, span.raw, span.offset, span.line)
        if "\r" in text.rstrip("\r\n") and '"' not in text:
            raise DataError(
                f"{self._name}:{span.line}: a carriage return alone within the line; if the file ends its lines so: "
                f"tr '\\r' '\\n' < {self._name} > NEW"
            )
        try:
            with _long_cells():
                return next(csv.reader([text], delimiter=self._delimiter, strict=True))
        except csv.Error as error:
            what = "a quoted cell is never closed" if "unexpected end" in str(error) else str(error)
            raise DataError(f"{self._name}:{span.line}: not a row of a table: {what}") from None

    def _checked(self, names: list[str], line: int) -> list[str]:
        place = f"{self._name}:{line}"
        names = [name.strip() for name in names]
        if "" in names:
            raise DataError(f"{place}: column {names.index('') + 1} of the header has no name")
        repeated = [name for name in names if names.count(name) > 1]
        if repeated:
            raise DataError(f"{place}: the header names column '{repeated[0]}' twice")
        other = next((sign for sign in NAMES if sign != self._delimiter and sign in names[0]), None)
        if len(names) == 1 and other:
            way_out = {",": "set dataset.file_type=csv", "\t": "set dataset.file_type=tsv"}
            raise DataError(
                f"{place}: one column '{names[0]}'; cells between {NAMES[other]}s are read when you "
                f"{way_out.get(other, 'replace them by commas')}"
            )
        return names


class _long_cells:  # noqa: N801 - reads as what it allows: `with _long_cells():`
    """A cell may be as long as the file; the csv module's limit belongs to the whole process, so it is put back."""

    def __enter__(self) -> None:
        self._former = csv.field_size_limit(2**31 - 1)

    def __exit__(self, *_: object) -> None:
        csv.field_size_limit(self._former)
