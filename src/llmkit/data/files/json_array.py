"""A JSON document that holds a list of rows."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llmkit.data.files.encoding import read_text
from llmkit.data.files.jsonl import JSONLines
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Row, Source

LIST_KEYS = ("data", "conversations")
DECODER = json.JSONDecoder()
WHITESPACE = re.compile(r"[ \t\n\r]*")


class JSONArray:
    """Rows of a .json file, all in memory: a list, or an object with one under `data` or `conversations`."""

    def __init__(self, path: Path, text: str) -> None:
        """Parse the whole document.

        Raises:
            DataError: it is not JSON, holds no list of objects, or the list is empty; names file:line:column.
        """
        self._path = path
        self._rows: list[dict[str, Any]] = []
        self._lines: list[int] = []
        line, counted = 1, 0
        for value, position in _elements(path, text, _list_start(path, text)):
            line, counted = line + text.count("\n", counted, position), position
            if not isinstance(value, dict):
                raise DataError(f"{path}:{line}: a row must be a JSON object, this is {kind_of(value)}")
            self._rows.append(value)
            self._lines.append(line)
        if not self._rows:
            raise DataError(f"{path}: the list has no rows")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Row:
        if not 0 <= index < len(self._rows):
            raise IndexError(index)
        return Row(self._rows[index], Source(str(self._path), self._lines[index]))


def open_json(path: Path) -> JSONArray | JSONLines:
    """Read a .json file; one that has an object on each line, as many do, is read as JSON Lines."""
    text = read_text(path)
    if not text.strip():
        raise DataError(f"{path}: the file is blank")
    if _is_lines(text):
        return JSONLines(path)
    return JSONArray(path, text)


def _is_lines(text: str) -> bool:
    """Whether the first line is an object by itself and another follows."""
    first, _, rest = text.lstrip().partition("\n")
    if not first.startswith("{") or not rest.lstrip().startswith("{"):
        return False
    try:
        json.loads(first)
    except json.JSONDecodeError:
        return False
    return True


def _list_start(path: Path, text: str) -> int:
    """Position of the bracket that opens the list of rows."""
    start = _skip(text, 0)
    if text[start] == "[":
        return start
    if text[start] != "{":
        value, _ = _decode(path, text, start)
        raise DataError(f"{path}: a .json file must hold a list of rows, this is {kind_of(value)}")
    starts = {key: position for key, position in _members(path, text, start) if text[position] == "["}
    found = [key for key in LIST_KEYS if key in starts]
    if len(found) == 1:
        return starts[found[0]]
    raise DataError(
        f"{path}: which list has the rows? A .json file must be a list, or an object with one list under "
        f"{_choice(found or LIST_KEYS)}; this object has the lists {', '.join(starts) or '(none)'}"
    )


def _choice(names: tuple[str, ...] | list[str]) -> str:
    return " or ".join(f"'{name}'" for name in names)


def _members(path: Path, text: str, start: int) -> Iterator[tuple[str, int]]:
    """Key and position of the value, for each member of the object at `start`, which must end the document."""
    position = _skip(text, start + 1)
    while text[position : position + 1] != "}":
        key, position = _decode(path, text, position)
        position = _expect(path, text, position, ":")
        yield str(key), position
        _, position = _decode(path, text, position)
        position = _next(path, text, position, "}")
    _check_end(path, text, position + 1)


def _elements(path: Path, text: str, start: int) -> Iterator[tuple[Any, int]]:
    """Value and position of each element of the list at `start`."""
    position = _skip(text, start + 1)
    while text[position : position + 1] != "]":
        value, end = _decode(path, text, position)
        yield value, position
        position = _next(path, text, end, "]")
    if start == _skip(text, 0):
        _check_end(path, text, position + 1)


def _next(path: Path, text: str, position: int, closing: str) -> int:
    """Position of the next element or member, or of the closing bracket."""
    position = _skip(text, position)
    if text[position : position + 1] == closing:
        return position
    position = _expect(path, text, position, ",")
    if text[position : position + 1] == closing:
        raise _syntax_error(path, text, json.JSONDecodeError("a comma with nothing after it", text, position))
    return position


def _skip(text: str, position: int) -> int:
    """The next position that is not white space."""
    match = WHITESPACE.match(text, position)
    return match.end() if match else position


def _decode(path: Path, text: str, position: int) -> tuple[Any, int]:
    try:
        return DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        raise _syntax_error(path, text, error) from None
    except RecursionError:
        raise DataError(f"{path}: JSON nested too deeply to be read") from None


def _expect(path: Path, text: str, position: int, character: str) -> int:
    position = _skip(text, position)
    if text[position : position + 1] != character:
        raise _syntax_error(path, text, json.JSONDecodeError(f"expected '{character}'", text, position))
    return _skip(text, position + 1)


def _check_end(path: Path, text: str, position: int) -> None:
    position = _skip(text, position)
    if position != len(text):
        raise _syntax_error(path, text, json.JSONDecodeError("extra data", text, position))


def _syntax_error(path: Path, text: str, error: json.JSONDecodeError) -> DataError:
    if error.pos >= len(text.rstrip()):
        return DataError(f"{path}:{error.lineno}:{error.colno}: the document ends too early; the file was cut off")
    return DataError(f"{path}:{error.lineno}:{error.colno}: not valid JSON: {error.msg}")
