"""JSON documents that hold rows: a list, an object with a list in it, or objects one after another."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from llmkit.data.files.encoding import text_start
from llmkit.data.files.json_scanner import JSONScanner
from llmkit.data.files.json_values import parse_object
from llmkit.data.files.jsonl import JSONLines
from llmkit.data.files.local_file import BLOCK, LocalFile, reading
from llmkit.data.files.spans import Place, Span
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError

LIST_KEYS = ("data", "conversations")


def open_json(file: LocalFile) -> "JSONLines | JSONDocument":
    """The layout of a .json file; one that has an object on each line, as many do, is read as JSON Lines.

    Raises:
        DataError: it is empty, not text, not JSON, or holds no list of rows.
    """
    begin = Place(text_start(file), 1)
    if _is_lines(file, begin):
        return JSONLines(file)
    with file.open(begin.offset) as stream, reading(file):
        scanner = JSONScanner(file, stream, begin)
        match scanner.skip_space():
            case "":
                raise DataError(f"{file.name}: the file is blank")
            case "[":
                scanner.take("[")
                return JSONDocument(file, Place(scanner.offset, scanner.line), in_list=True)
            case "{":
                before = Place(scanner.offset, scanner.line)
                lists = _lists(scanner)
                if scanner.skip_space():
                    return JSONDocument(file, before, in_list=False)
                return JSONDocument(file, _list_of_rows(file, lists), in_list=True)
            case _:
                value, _ = scanner.value()
                raise DataError(f"{file.name}: a .json file must hold a list of rows, this is {kind_of(value)}")


class JSONDocument:
    """Rows of a document. A document that breaks off is read up to there, then it is an error."""

    no_rows = "the list has no rows"

    def __init__(self, file: LocalFile, start: Place, *, in_list: bool) -> None:
        """
        Args:
            start: behind the bracket that opens the list of rows, or before the first of several objects.
            in_list: whether rows are a list's items, or follow one another without anything between them.
        """
        self._file = file
        self._in_list = in_list
        self.start = start

    def spans(self, stream: BinaryIO, place: Place) -> Iterator[Span]:
        """Each item of the list, or each of the objects."""
        scanner = JSONScanner(self._file, stream, place)
        while (character := scanner.skip_space()) and not (self._in_list and character == "]"):
            if self._in_list and place != self.start:
                scanner.take(",")
                if scanner.skip_space() == "]":
                    raise scanner.fault("a comma with nothing after it")
            offset, line = scanner.offset, scanner.line
            _, text = scanner.value()
            span = Span(offset, line, text.encode())
            place = span.end
            yield span
        if self._in_list:
            scanner.take("]")
            self._check_end(scanner)

    def parse(self, span: Span) -> dict[str, Any]:
        """The object that is a row."""
        return parse_object(self._file.name, span)

    def _check_end(self, scanner: JSONScanner) -> None:
        # Behind a list within an object comes the rest of the object, which was read when the list was looked for.
        if scanner.skip_space() not in ("", ",", "}"):
            raise scanner.fault("extra data")


def _is_lines(file: LocalFile, begin: Place) -> bool:
    """Whether the first line is an object by itself and another follows."""
    with file.open(begin.offset) as stream, reading(file):
        first = b""
        while not first.strip() and (line := stream.readline(BLOCK)):
            first = line
        if not first.endswith(b"\n") or not first.lstrip().startswith(b"{"):
            return False
        following = stream.read(BLOCK).lstrip()
    if not following.startswith(b"{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _lists(scanner: JSONScanner) -> dict[str, Place]:
    """The place behind the bracket of each list that is a member of the object here; steps over the object."""
    lists: dict[str, Place] = {}
    scanner.take("{")
    while scanner.skip_space() != "}":
        if scanner.skip_space() != '"':
            raise scanner.fault("expected a key in double quotes")
        key, _ = scanner.value()
        scanner.take(":")
        if scanner.skip_space() == "[":
            scanner.take("[")
            lists[key] = Place(scanner.offset, scanner.line)
            _pass_list(scanner)
        else:
            scanner.value()
        _pass_comma(scanner, "}")
    scanner.take("}")
    return lists


def _pass_list(scanner: JSONScanner) -> None:
    """Step over the rest of a list, item by item."""
    while scanner.skip_space() != "]":
        scanner.value()
        _pass_comma(scanner, "]")
    scanner.take("]")


def _pass_comma(scanner: JSONScanner, closing: str) -> None:
    if scanner.skip_space() != closing:
        scanner.take(",")
        if scanner.skip_space() == closing:
            raise scanner.fault("a comma with nothing after it")


def _list_of_rows(file: LocalFile, lists: dict[str, Place]) -> Place:
    found = [key for key in LIST_KEYS if key in lists]
    if len(found) == 1:
        return lists[found[0]]
    choice = " or ".join(f"'{key}'" for key in found or LIST_KEYS)
    raise DataError(
        f"{file.name}: which list has the rows? A .json file must be a list, or an object with one list under "
        f"{choice}; this object has the lists {', '.join(lists) or '(none)'}"
    )
