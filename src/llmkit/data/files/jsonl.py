"""JSON Lines: an object on each line."""

from collections.abc import Iterator
from typing import Any, BinaryIO

from llmkit.data.files.encoding import text_start
from llmkit.data.files.json_values import parse_object
from llmkit.data.files.local_file import LocalFile
from llmkit.data.files.spans import Place, Span
from llmkit.errors import DataError


class JSONLines:
    """Rows of a .jsonl file. Blank lines are skipped and still counted in line numbers."""

    no_rows = "no rows, only blank lines"

    def __init__(self, file: LocalFile) -> None:
        """
        Raises:
            DataError: the file is empty, not text, or one JSON list.
        """
        self._name = file.name
        self.start = Place(text_start(file), 1)
        head = file.head()[self.start.offset :]
        if head.lstrip().startswith(b"["):
            line = 1 + head[: head.index(b"[")].count(b"\n")
            raise DataError(
                f"{file.name}:{line}: a row must be a JSON object, this is a list; if the whole file is one list, "
                "whatever its name says: --set dataset.file_type=json"
            )

    def spans(self, stream: BinaryIO, place: Place) -> Iterator[Span]:
        """Every line that is not blank."""
        offset, line = place
        for raw in stream:
            if not raw.isspace():
                yield Span(offset, line, raw)
            offset += len(raw)
            line += 1

    def parse(self, span: Span) -> dict[str, Any]:
        """The object on a line; a last line that has no end and is not JSON was torn off."""
        return parse_object(self._name, span)
