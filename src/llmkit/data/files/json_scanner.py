"""A JSON document, value by value, with a few values of it in memory."""

import codecs
import json
import re
from typing import Any, BinaryIO

from llmkit.data.files.encoding import not_utf8, place_of
from llmkit.data.files.local_file import BLOCK, LocalFile
from llmkit.data.files.spans import Place
from llmkit.errors import DataError

DECODER = json.JSONDecoder()
WHITESPACE = re.compile(r"[ \t\n\r]*")
LONGEST_TOKEN = 16
"""More characters than a literal, an escape, or a number's sign and point may need to be recognized."""


class JSONScanner:
    """Walks through a document. What it holds in memory is one block, or one value where that is longer.

    Attributes:
        offset: bytes before the place where it stands.
        line: the line of that place, from 1.
    """

    def __init__(self, file: LocalFile, stream: BinaryIO, place: Place) -> None:
        """
        Args:
            file: for messages.
            stream: its content, at `place`.
        """
        self.offset, self.line = place
        self._file = file
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._num_read = place.offset
        self._text = ""
        self._at = 0

    def skip_space(self) -> str:
        """Move to the next character that is not white space; returns it, or '' at the end of the document."""
        while True:
            match = WHITESPACE.match(self._text, self._at)
            assert match is not None, "the pattern fits the empty text"
            self._advance(match.end())
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._fill():
                return ""

    def take(self, character: str) -> None:
        """Skip white space and step over `character`.

        Raises:
            DataError: something else is there.
        """
        if self.skip_space() != character:
            raise self.fault(f"expected '{character}'")
        self._advance(self._at + 1)

    def value(self) -> tuple[Any, str]:
        """Step over the value that begins here; returns it, and its text.

        Raises:
            DataError: it is not JSON, nested too deeply, or the document ends within it.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # A text that is cut by the window's end looks like a fault; one before the end is a fault.
                is_cut = error.msg.startswith("Unterminated") or error.pos >= len(self._text) - LONGEST_TOKEN
                if is_cut and self._fill():
                    continue
                self._advance(min(error.pos, len(self._text)))
                raise self.fault(error.msg) from None
            except RecursionError:
                raise DataError(f"{self._file.name}:{self.line}: JSON nested too deeply to be read") from None
            if self._text[end - 1] not in '}]"' and end > len(self._text) - LONGEST_TOKEN and self._fill():
                continue  # a number may go on
            text = self._text[self._at : end]
            self._advance(end)
            return value, text

    def fault(self, message: str) -> DataError:
        """The error for what stands here."""
        line, column = place_of(self._file, self.offset)
        where = f"{self._file.name}:{line}:{column}"
        if not self.skip_space() or message.startswith("Unterminated"):
            return DataError(f"{where}: the document ends too early ({message}); the file was cut off")
        return DataError(f"{where}: not valid JSON: {message}")

    def _advance(self, end: int) -> None:
        passed = self._text[self._at : end]
        self.offset += len(passed) if passed.isascii() else len(passed.encode())
        self.line += passed.count("\n")
        self._at = end

    def _fill(self) -> bool:
        """Take more of the document into the window; False at its end."""
        # As much again as is there already: a value of many blocks is tried a few times and not once a block.
        block = self._stream.read(max(BLOCK, len(self._text) - self._at))
        self._num_read += len(block)
        try:
            text = self._decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            offset = self._num_read - len(error.object) + error.start
            line, column = place_of(self._file, offset)
            raise not_utf8(self._file.name, line, column, offset, error.object[error.start]) from None
        if not block:
            return False
        self._text = self._text[self._at :] + text
        self._at = 0
        return True
