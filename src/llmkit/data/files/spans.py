"""Text files whose rows follow one another: where each begins and ends, and what it says."""

from array import array
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple, Protocol, Self

from llmkit.data.files.local_file import LocalFile, reading
from llmkit.errors import DataError, SourceError
from llmkit.types import Row, Source


class Place(NamedTuple):
    """A place in a file: bytes before it, and its line from 1."""

    offset: int
    line: int


class Span(NamedTuple):
    """The bytes of one row, and where they begin."""

    offset: int
    line: int
    raw: bytes

    @property
    def end(self) -> Place:
        """The place after it."""
        return Place(self.offset + len(self.raw), self.line + self.raw.count(b"\n"))


class Layout(Protocol):
    """How the rows of one text file are laid out. It can be pickled.

    Attributes:
        start: the place before the first row.
        no_rows: what to say of a file without rows.
    """

    start: Place
    no_rows: str

    def spans(self, stream: BinaryIO, place: Place) -> Iterator[Span]:
        """The rows from `place` on, which is `start` or the end of a row; `stream` stands there.

        Raises:
            DataError: where the next row ends cannot be told; names file:line:column.
        """
        ...

    def parse(self, span: Span) -> Mapping[str, Any]:
        """What a row says.

        Raises:
            DataError: it is faulty; names file:line.
        """
        ...


class SpanRows:
    """The rows of a text file as a data set: 24 bytes of memory a row, which is parsed when it is read."""

    def __init__(self, file: LocalFile, layout: Layout) -> None:
        """Find every row, and parse the last one, which shows whether the file was cut off.

        Args:
            file: not packed.
        Raises:
            DataError: it cannot be read, has no rows, or ends within a row.
        """
        self._file = file
        self._layout = layout
        self._offsets = array("Q")
        self._lengths = array("Q")
        self._lines = array("Q")
        last = None
        with file.open(layout.start.offset) as stream, reading(file):
            for last in layout.spans(stream, layout.start):
                self._offsets.append(last.offset)
                self._lengths.append(len(last.raw))
                self._lines.append(last.line)
        file.check()
        if last is None:
            raise DataError(f"{file.name}: {layout.no_rows}")
        if not last.raw.endswith(b"\n"):
            layout.parse(last)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self._offsets):
            raise IndexError(index)
        offset, line = self._offsets[index], self._lines[index]
        try:
            raw = self._file.read(offset, offset + self._lengths[index])
        except DataError as error:
            raise SourceError(str(error)) from None
        return Row(self._layout.parse(Span(offset, line, raw)), Source(self._file.name, line))


class SpanReader:
    """A pass over the rows of a text file, without an index."""

    def __init__(self, file: LocalFile, layout: Layout, position: Any = None) -> None:
        """Begin, or go on at a position that a reader of the same file gave."""
        self._file = file
        self._layout = layout
        self._place = Place(*position) if position is not None else layout.start
        self._is_empty = position is None
        self._stream = file.open(self._place.offset)
        self._spans = layout.spans(self._stream, self._place)
        self._fault: SourceError | None = None

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Row:
        """The next row. After a faulty row comes the one behind it; a fault that hides where the next row begins is a
        `SourceError`, at each further call too."""
        if self._fault is not None:
            raise self._fault
        try:
            with reading(self._file):
                span = next(self._spans, None)
            if span is None and self._is_empty:
                raise DataError(f"{self._file.name}: {self._layout.no_rows}")
        except DataError as error:
            self._fault = SourceError(str(error))
            raise self._fault from None
        if span is None:
            raise StopIteration
        self._is_empty = False
        self._place = span.end
        return Row(self._layout.parse(span), Source(self._file.name, span.line))

    @property
    def position(self) -> list[int]:
        """Byte offset and line after the row that came last."""
        return list(self._place)

    def close(self) -> None:
        """Let go of the file."""
        self._stream.close()
