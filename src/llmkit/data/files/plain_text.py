"""Plain text: a row for each line, paragraph or file."""

from collections.abc import Iterator
from typing import BinaryIO, Literal

from llmkit.data.files.encoding import decode, text_start
from llmkit.data.files.local_file import LocalFile
from llmkit.data.files.spans import Place, Span

TextRows = Literal["line", "paragraph", "file"]


class PlainText:
    """Rows `{"text": ...}` of a text file. A paragraph ends at a blank line; blank lines are no rows."""

    no_rows = "no rows, only blank lines"

    def __init__(self, file: LocalFile, rows: TextRows) -> None:
        """
        Raises:
            DataError: the file is empty or not text.
        """
        self._name = file.name
        self._rows: TextRows = rows
        self.start = Place(text_start(file), 1)

    def spans(self, stream: BinaryIO, place: Place) -> Iterator[Span]:
        """Every line, paragraph or file that is not blank."""
        if self._rows == "file":
            raw = stream.read()
            if raw.strip():
                yield Span(*place, raw)
            return
        offset, line = place
        paragraph: list[bytes] = []
        for raw in stream:
            is_blank = raw.isspace()
            if paragraph and is_blank:
                yield _ending_at(offset, line, paragraph)
                paragraph = []
            if self._rows == "line" and not is_blank:
                yield Span(offset, line, raw)
            elif not is_blank:
                paragraph.append(raw)
            offset += len(raw)
            line += 1
        if paragraph:
            yield _ending_at(offset, line, paragraph)

    def parse(self, span: Span) -> dict[str, str]:
        """The text; of a line or paragraph without the line break at its end."""
        text = decode(self._name, span.raw, span.offset, span.line)
        return {"text": text if self._rows == "file" else text.rstrip("\r\n")}


def _ending_at(offset: int, line: int, lines: list[bytes]) -> Span:
    raw = b"".join(lines)
    return Span(offset - len(raw), line - len(lines), raw)
