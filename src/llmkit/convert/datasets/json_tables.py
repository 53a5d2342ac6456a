"""JSON Lines straight into tables, a block of lines at a time, with no object of Python's for each row."""

import io
from collections.abc import Callable, Iterator
from itertools import chain, islice, repeat
from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from llmkit.convert.datasets.tables import BATCH_ROWS, Values, Widening
from llmkit.convert.datasets.tally import Lines, Tally
from llmkit.data.contract import Dataset, Stream
from llmkit.data.files.file_stream import FileStream
from llmkit.data.files.jsonl import JSONLines
from llmkit.data.files.local_file import LocalFile, reading
from llmkit.data.files.spans import Place, Span
from llmkit.errors import DataError, SourceError

if TYPE_CHECKING:
    from pyarrow import Array, Schema, Table

FIRST_BYTES = 1 << 18
"""Of lines that are read row by row, to see which columns there are."""
BLOCK_BYTES = 1 << 22
LARGEST_BLOCK = 1 << 30
NEWLINE, RETURN, OPEN, CLOSE = b"\n\r{}"
LARGEST_EXACT = 2.0**53
"""Beyond it, not every whole number is a float64."""


class JSONTables:
    """Rows that are copied as they are; calling it begins a pass, see `Tables`.

    pyarrow parses a block with the columns that the rows before it have. Where it refuses that, or could read something
    else than the lines say, the block is read row by row like all other data, with the same errors for the same rows.
    """

    def __init__(self, stream: FileStream, begin: Callable[[], Tally]) -> None:
        """
        Args:
            stream: of JSON Lines files.
            begin: gives the tally of a new pass.
        """
        self._stream = stream
        self._begin = begin

    def __call__(self, schema: "Schema | None") -> "Iterator[Table]":
        tally, lines, widening = self._begin(), Lines(), Widening(schema)
        for look in self._stream.looks:
            layout, before = JSONLines(look), tally.read
            for block in _blocks(look, layout.start):
                yield from _tables(layout, block, widening, tally)
                lines.tell(tally.read)
            if tally.read == before:
                raise SourceError(f"{look.name}: {layout.no_rows}")


def is_json_lines(source: Dataset | Stream) -> TypeGuard[FileStream]:
    """Whether rows come from such files alone."""
    return isinstance(source, FileStream) and all(file.type == "jsonl" for file in source.files)


def _blocks(file: LocalFile, start: Place) -> Iterator[Span]:
    """Whole lines, some megabytes at a time; a last one that has no end comes by itself.

    Raises:
        SourceError: the file changed or broke off.
    """
    offset, line = start
    sizes = chain([FIRST_BYTES], repeat(BLOCK_BYTES))
    rest: list[bytes] = []
    try:
        with file.open(offset) as stream, reading(file):
            while content := stream.read(next(sizes)):
                end = content.rfind(b"\n") + 1
                if not end:
                    rest.append(content)
                    continue
                block = Span(offset, line, b"".join([*rest, content[:end]]))
                rest = [content[end:]]
                yield block
                offset, line = block.end
        file.check()
    except DataError as error:
        raise SourceError(str(error)) from None
    if torn := b"".join(rest):
        yield Span(offset, line, torn)


def _tables(layout: JSONLines, block: Span, widening: Widening, tally: Tally) -> "Iterator[Table]":
    if widening.schema is not None and (table := _parsed(block.raw, widening.schema)) is not None:
        tally.read += table.num_rows
        yield table
        return
    rows = _rows(layout, block, tally)
    while batch := list(islice(rows, BATCH_ROWS)):
        yield widening.table(batch)


def _rows(layout: JSONLines, block: Span, tally: Tally) -> Iterator[Values]:
    """The rows of a block, one by one; those that cannot be read are counted."""
    for span in layout.spans(io.BytesIO(block.raw), Place(block.offset, block.line)):
        tally.read += 1
        try:
            yield layout.parse(span)
        except DataError as error:
            tally.add_fault(error)


def _parsed(raw: bytes, schema: "Schema") -> "Table | None":
    """A block as pyarrow reads it; None where that may be something else than its lines say."""
    import pyarrow as pa
    from pyarrow import json

    if len(raw) > LARGEST_BLOCK or not (num_lines := _objects(raw)):
        return None
    try:
        table = json.read_json(
            pa.BufferReader(raw),
            read_options=json.ReadOptions(block_size=len(raw)),
            parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
        )
        table.validate(full=True)  # it does not ask for UTF-8 while it parses
    except pa.ArrowException:
        return None
    exact = table.schema == schema and all(_is_exact(chunk) for column in table.columns for chunk in column.chunks)
    return table if table.num_rows == num_lines and exact else None


def _objects(raw: bytes) -> int:
    """How many objects lie one on each line; 0 where they may lie otherwise.

    A line break between `}` and `{` is one between two rows, as nothing else in JSON can be there. When each is, a row
    that ended or began within a line would show in the number of rows. pyarrow itself takes breaks for any other blank,
    and crashes where the first row is null.
    """
    if raw[0] != OPEN or raw[-1] != NEWLINE:
        return 0
    content = np.frombuffer(raw, np.uint8)
    ends = np.flatnonzero(content == NEWLINE)
    before, after = content[ends - 1], content[ends[:-1] + 1]
    if (before == RETURN).any():
        before = np.where(before == RETURN, content[ends - 2], before)
    return len(ends) if (before == CLOSE).all() and (after == OPEN).all() else 0


def _is_exact(array: "Array") -> bool:
    """Whether no number in it can have been a whole one that a float rounds."""
    import pyarrow as pa
    from pyarrow.compute import call_function

    if isinstance(array, pa.StructArray):
        return all(_is_exact(child) for child in array.flatten())
    if isinstance(array, pa.ListArray):
        return _is_exact(array.flatten())
    if not pa.types.is_floating(array.type):
        return True
    largest = call_function("max", [call_function("abs", [array])]).as_py()
    return largest is None or not largest >= LARGEST_EXACT
