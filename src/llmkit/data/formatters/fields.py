"""Read the parts that foreign rows are made of: text, messages, weights."""

import json
import math
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple

from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Role, Row, Source

ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "tool": "tool",
}
"""Every spelling of a role, and the role it means."""
WEIGHT_KEYS = ("weight", "loss", "loss_weight", "loss_scale", "train", "trainable")
"""Every spelling of a message's loss weight."""
NOT_TEXT = (
    "tool_calls",
    "function_call",
    "reasoning_content",
    "reasoning",
    "thinking",
    "image",
    "images",
    "audio",
    "video",
)
"""What a message may hold beside its text. Leaving it out would train on something else than the row says."""
NOT_TEXT_COLUMNS = ("tools", "images", "image", "videos", "audios")
"""The same for a whole row."""


class Place(NamedTuple):
    """Where in a row a value is: `train.jsonl:17: messages[2]`."""

    source: Source
    name: str

    def __str__(self) -> str:
        return f"{self.source}: {self.name}"


def require(row: Row, column: str, option: str) -> Any:
    """The value of a column.

    Args:
        row: the row.
        column: the column to read.
        option: the setting that names another column, for the message.
    Raises:
        DataError: the row has no such column, or it is null.
    """
    if row.values.get(column) is not None:
        return row.values[column]
    if column in row.values:
        raise DataError(f"{row.source}: '{column}' is null")
    found = ", ".join(row.values) or "(nothing)"
    close = get_close_matches(column, row.values, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise DataError(
        f"{row.source}: no '{column}'; found {found}.{hint} Name the column with --set {option}=..., "
        "or choose another formatter with --set formatter.name=..."
    )


def refuse_beyond_text(row: Row) -> None:
    """Stop at a row with tools or media, which would be trained without them.

    Raises:
        DataError: a column holds them.
    """
    beyond = next((column for column in NOT_TEXT_COLUMNS if row.values.get(column)), None)
    if beyond is not None:
        raise DataError(f"{row.source}: the row has '{beyond}', and this version trains on text only; remove such rows")


def reference_answer(row: Row, column: str) -> str | None:
    """The reference answer that rewards compare with; None when there is no such column, or it holds no text."""
    value = row.values.get(column)
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def as_text(value: Any, place: Place) -> str:
    """Text, or a number as it is written.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    raise DataError(f"{place} must be text, this is {kind_of(value)}")


def as_messages(value: Any, place: Place) -> tuple[Message, ...]:
    """A list of `{role, content}` messages; a list written as JSON text, as in a CSV cell, is read too.

    Raises:
        DataError: it is not such a list, or is empty; names the message.
    """
    if isinstance(value, str):
        value = _from_json(value, place)
    if not isinstance(value, list | tuple):
        raise DataError(f"{place} must be a list of messages, this is {kind_of(value)}")
    if not value:
        raise DataError(f"{place} is an empty list; a conversation needs a message")
    return tuple(as_message(item, Place(place.source, f"{place.name}[{index}]")) for index, item in enumerate(value))


def as_message(item: Any, place: Place) -> Message:
    """One message: `{role, content}`, or `{from, value}` as ShareGPT writes it, with an optional loss weight.

    Raises:
        DataError: the role is unknown, the content is not text, or it has tool calls or media.
    """
    if not isinstance(item, Mapping):
        raise DataError(f"{place} must be an object with 'role' and 'content', this is {kind_of(item)}")
    beyond = next((key for key in NOT_TEXT if item.get(key)), None)
    if beyond is not None:
        raise DataError(f"{place} has '{beyond}', and this version trains on text only; remove such rows")
    role = item.get("role", item.get("from"))
    if not isinstance(role, str) or role.lower() not in ROLES:
        known = ", ".join(dict.fromkeys(ROLES.values()))
        raise DataError(f"{place} has the role {role!r}; known roles: {known}")
    content = item.get("content", item.get("value"))
    return Message(ROLES[role.lower()], _content(content, place), weight_of(item, place))


def weight_of(item: Mapping[str, Any], place: Place) -> float | None:
    """A message's loss weight in any spelling; None when it has none.

    Raises:
        DataError: it is not a number from 0, or two spellings disagree.
    """
    given = {key: item[key] for key in WEIGHT_KEYS if item.get(key) is not None}
    weights = {key: _weight(value, Place(place.source, f"{place.name}.{key}")) for key, value in given.items()}
    if len(set(weights.values())) > 1:
        shown = ", ".join(f"{key}={value}" for key, value in given.items())
        raise DataError(f"{place} has weights that disagree: {shown}; keep one of them")
    return next(iter(weights.values()), None)


def write_message(message: Message) -> dict[str, Any]:
    """The message as `{role, content}`, with `weight` where it has one."""
    written: dict[str, Any] = {"role": message.role, "content": message.text}
    return written if message.weight is None else {**written, "weight": message.weight}


def others(row: Row, used: Collection[str]) -> dict[str, Any]:
    """The columns that a formatter does not use itself."""
    return {column: value for column, value in row.values.items() if column not in used}


def _content(content: Any, place: Place) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list | tuple):
        return "".join(_part(part, Place(place.source, f"{place.name}.content[{i}]")) for i, part in enumerate(content))
    if content is None:
        raise DataError(f"{place} has no content; give it text, '' for none")
    raise DataError(f"{place} has content that is {kind_of(content)}; it must be text or a list of text parts")


def _part(part: Any, place: Place) -> str:
    """One part of a content list. Parts are joined without anything between them."""
    if isinstance(part, str):
        return part
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return part["text"]
    kind = part.get("type", "an object without text") if isinstance(part, Mapping) else kind_of(part)
    raise DataError(f"{place} is {kind!r}, and this version trains on text only; remove such rows")


def _weight(value: Any, place: Place) -> float:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        return float(value.strip().lower() == "true")
    try:
        weight = float(value)
    except (TypeError, ValueError):
        weight = math.nan
    if not (math.isfinite(weight) and weight >= 0):
        raise DataError(f"{place} is {value!r}; a weight is true, false or a number from 0")
    return weight


def _from_json(text: str, place: Place) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{place} must be a list of messages, this is text ({error.msg} as JSON)") from None
