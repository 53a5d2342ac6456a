"""Images, videos and audio in columns of their own, and the places in the text where they go."""

import base64
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from llmkit.data.formatters.cells import from_cell, is_written_list
from llmkit.data.formatters.columns import Place, given
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Part, Record, Row

PLACEHOLDERS = {"image": "<image>", "video": "<video>", "audio": "<audio>"}
"""What stands in a text where a medium goes, as LLaMA-Factory and ms-swift write it."""
HAS_PLACE = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
SIGNATURES = {b"\xff\xd8": "image/jpeg", b"\x89PNG": "image/png", b"GIF8": "image/gif", b"RIFF": "audio/wav"}


class MediaColumns(NamedTuple):
    """The columns of each medium; None reads none."""

    image: str | None
    video: str | None
    audio: str | None

    def named(self) -> list[tuple[str, str]]:
        """Medium and column of those that are read."""
        return [(medium, column) for medium, column in self._asdict().items() if column is not None]


def locate(value: Any, place: Place) -> str:
    """Where a medium is: a URL, or a path as seen from the working directory; paths in a file begin where it is.

    Args:
        value: a path or URL, or the `{path, bytes}` that Hugging Face's tables hold.
        place: where it stands.
    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return _data_url(value["bytes"])
        value = value.get("path")
    if not isinstance(value, str) or not value:
        raise DataError(f"{place} must be a path or a URL, this is {kind_of(value) if value != '' else 'empty'}")
    if HAS_PLACE.match(value) or os.path.isabs(value) or not os.path.isfile(place.source.path):
        return value
    return os.path.join(os.path.dirname(place.source.path), value)


def put_media(row: Row, messages: Sequence[Message], columns: MediaColumns) -> tuple[Message, ...]:
    """The messages with the row's media in their places: at `<image>` in the text, and at parts without a URL.

    A row without a column for a medium keeps `<image>` as text.

    Raises:
        DataError: a column has more or fewer media than there are places.
    """
    found = {medium: _urls(row, column) for medium, column in columns.named() if given(row, column) is not None}
    if not found:
        return tuple(messages)
    needed = {medium: sum(_count(message, medium) for message in messages) for medium in found}
    for medium, column in columns.named():
        if medium in found and needed[medium] != len(found[medium]):
            raise DataError(
                f"{row.source}: {len(found[medium])} in '{column}', but {needed[medium]} places for them in the "
                f"messages ({PLACEHOLDERS[medium]}, or a part of the type {medium}); they must be as many"
            )
    queues = {medium: list(reversed(urls)) for medium, urls in found.items()}
    return tuple(_filled(message, queues) for message in messages)


def take_media(record: Record, formatter: str) -> tuple[tuple[Message, ...], dict[str, list[str]]]:
    """The record's messages with `<image>` in place of media, and the URLs by medium, in order.

    Raises:
        DataError: a medium has no URL, or a text says `<image>` and means the word.
    """
    urls: dict[str, list[str]] = {}
    for part in (part for message in record.messages for part in message.media):
        if part.url is None:
            raise DataError(f"{record.source}: '{formatter}' cannot hold a medium ({part.type}) without its URL")
        urls.setdefault(part.type, []).append(part.url)
    for message in record.messages:
        spelled = next((medium for medium in urls if PLACEHOLDERS[medium] in message.text), None)
        if spelled is not None:
            raise DataError(
                f"{record.source}: '{formatter}' marks the place of a medium with {PLACEHOLDERS[spelled]}, and the "
                "text has that word; write it as 'messages'"
            )
    return tuple(_marked(message) for message in record.messages), urls


def _urls(row: Row, column: str) -> list[str]:
    place = Place(row.source, column)
    value = given(row, column)
    if isinstance(value, str):
        # A cell of a table of text holds a JSON list, or one path.
        value = from_cell(value, place, "a list of paths or URLs") if is_written_list(value) else [value] * bool(value)
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list | tuple):
        raise DataError(f"{place} must be a list of paths or URLs, this is {kind_of(value)}")
    return [locate(item, place.at(index)) for index, item in enumerate(value)]


def _count(message: Message, medium: str) -> int:
    unfilled = sum(part.type == medium and part.url is None for part in message.media)
    return unfilled + sum(part.text.count(PLACEHOLDERS[medium]) for part in message.parts)


def _filled(message: Message, queues: Mapping[str, list[str]]) -> Message:
    if not any(_count(message, medium) for medium in queues):
        return message
    pattern = re.compile("|".join(f"({PLACEHOLDERS[medium]})" for medium in queues))
    parts: list[Part] = []
    for part in message.parts:
        if part.type != "text":
            is_open = part.url is None and part.type in queues
            parts.append(replace(part, url=queues[part.type].pop()) if is_open else part)
            continue
        start = 0
        for match in pattern.finditer(part.text):
            medium = list(queues)[(match.lastindex or 1) - 1]
            if match.start() > start:
                parts.append(replace(part, text=part.text[start : match.start()]))
            parts.append(Part(medium, url=queues[medium].pop()))  # type: ignore[arg-type] - a key of PLACEHOLDERS
            start = match.end()
        if start < len(part.text):
            parts.append(replace(part, text=part.text[start:]))
    return replace(message, content=tuple(parts))


def _marked(message: Message) -> Message:
    if isinstance(message.content, str):
        return message
    text = "".join(part.text if part.type == "text" else PLACEHOLDERS[part.type] for part in message.content)
    return replace(message, content=text)


def _data_url(content: bytes) -> str:
    kind = next((kind for start, kind in SIGNATURES.items() if content.startswith(start)), "application/octet-stream")
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
