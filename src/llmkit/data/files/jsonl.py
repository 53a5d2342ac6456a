"""A file with one JSON object per line, read through an index of line positions: memory stays flat."""

import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmkit.data.files.encoding import not_utf8, text_start, unreadable
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Row, Source


class JSONLines:
    """Rows of a .jsonl file: 16 bytes of memory a row; a row is parsed when it is read.

    Blank lines are skipped and still counted in line numbers.
    """

    def __init__(self, path: Path) -> None:
        """Index the file and check its encoding and its last line.

        Raises:
            DataError: it cannot be read, is not UTF-8 text, has no rows, or ends within a row.
        """
        self._path = path
        self._offsets = array("Q")
        self._lines = array("Q")
        last = b""
        for offset, line, raw in self._scan():
            self._offsets.append(offset)
            self._lines.append(line)
            last = raw
        if not self._offsets:
            raise DataError(f"{path}: no rows, only blank lines")
        self._stamp = _stamp(path.stat())
        _check_last(path, self._lines[-1], last)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self._offsets):
            raise IndexError(index)
        line = self._lines[index]
        try:
            with self._path.open("rb") as file:
                if _stamp(os.fstat(file.fileno())) != self._stamp:
                    raise DataError(f"{self._path}: the file changed after it was opened; start again")
                file.seek(self._offsets[index])
                raw = file.readline()
        except OSError as error:
            raise unreadable(self._path, error) from None
        return Row(_parse(self._path, line, raw), Source(str(self._path), line))

    def _scan(self) -> Iterator[tuple[int, int, bytes]]:
        """Offset, line number and bytes of every line that is not blank."""
        try:
            with self._path.open("rb") as file:
                offset = text_start(self._path, file.read(4096))
                file.seek(offset)
                for line, raw in enumerate(file, start=1):
                    _decode(self._path, line, offset, raw)
                    if raw.strip():
                        yield offset, line, raw
                    offset += len(raw)
        except OSError as error:
            raise unreadable(self._path, error) from None


def _stamp(stat: os.stat_result) -> tuple[int, int]:
    return stat.st_size, stat.st_mtime_ns


def _decode(path: Path, line: int, offset: int, raw: bytes) -> None:
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        raise not_utf8(path, line, offset, raw, error) from None


def _parse(path: Path, line: int, raw: bytes) -> dict[str, Any]:
    try:
        values = json.loads(raw)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{line}:{error.colno}: not valid JSON: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path}:{line}: JSON nested too deeply to be read") from None
    if not isinstance(values, dict):
        raise DataError(f"{path}:{line}: a row must be a JSON object, this is {kind_of(values)}")
    return values


def _check_last(path: Path, line: int, raw: bytes) -> None:
    """A last line that has no newline and is not JSON was torn off."""
    if raw.endswith(b"\n"):
        return
    try:
        json.loads(raw)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{line}:{error.colno}: the last line ends within a row ({error.msg}); the file was cut off. "
            "Write it again or remove that line"
        ) from None
