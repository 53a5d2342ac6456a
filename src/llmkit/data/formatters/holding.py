"""What a format can hold of a record, and what it has to refuse."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

from llmkit.errors import DataError
from llmkit.types import Message, Record

Feature = Literal[
    "a preference pair",
    "plain text",
    "token ids",
    "tool schemas",
    "a label",
    "a reference answer",
    "loss weights",
    "loss weights of parts",
    "tool calls",
    "ids of tool calls",
    "reasoning",
    "names of speakers",
    "media",
]
IN_MESSAGES: Mapping[Feature, Callable[[Message], bool]] = {
    "loss weights": lambda message: message.weight is not None,
    "loss weights of parts": lambda message: any(part.weight is not None for part in message.parts),
    "tool calls": lambda message: bool(message.tool_calls) or message.role == "tool",
    "ids of tool calls": lambda message: (
        message.tool_call_id is not None or any(call.id is not None for call in message.tool_calls)
    ),
    "reasoning": lambda message: message.reasoning is not None,
    "names of speakers": lambda message: message.name is not None,
    "media": lambda message: bool(message.media),
}
IN_RECORDS: Mapping[Feature, Callable[[Record], bool]] = {
    "a preference pair": lambda record: bool(record.chosen or record.rejected),
    "plain text": lambda record: record.text is not None,
    "token ids": lambda record: record.tokens is not None,
    "tool schemas": lambda record: record.tools is not None,
    "a label": lambda record: record.label is not None,
    "a reference answer": lambda record: record.answer is not None,
}


def messages_and(*more: Feature) -> frozenset[Feature]:
    """All that messages in OpenAI's form hold, and what is named."""
    return frozenset((*IN_MESSAGES, *more))


def features(record: Record) -> list[Feature]:
    """What the record has that not every format can hold."""
    messages = (*record.messages, *record.chosen, *record.rejected)
    found: list[Feature] = [feature for feature, has in IN_RECORDS.items() if has(record)]
    return found + [feature for feature, has in IN_MESSAGES.items() if any(map(has, messages))]


def refuse_unheld(record: Record, formatter: str, held: Collection[Feature]) -> None:
    """Stop at a record that has more than a format can hold.

    Args:
        record: to be written.
        formatter: the format's name.
        held: what it can hold.
    Raises:
        DataError: names all that would be lost, and a format that holds it.
    """
    unheld = [feature for feature in features(record) if feature not in held]
    if unheld:
        raise cannot_hold(record, formatter, ", ".join(unheld))


def cannot_hold(record: Record, formatter: str, what: str) -> DataError:
    """The error for a record that a format cannot hold, with a format that can."""
    other = "messages"
    if record.tokens is not None:
        other = "tokens"
    elif record.text is not None:
        other = "text"
    elif record.chosen or record.rejected:
        other = "preference"
    way_out = f"; write it as '{other}'" if other != formatter else ""
    return DataError(f"{record.source}: '{formatter}' cannot hold {what}{way_out}")


def with_extra(row: Mapping[str, Any], record: Record, formatter: str, reserved: Collection[str | None]) -> dict:
    """A written row with the record's extra columns.

    Args:
        row: what is written of the record itself.
        record: gives the extra columns.
        formatter: the format's name.
        reserved: columns to which the format gives a meaning.
    Raises:
        DataError: an extra column has the name of one that the format reads itself.
    """
    clash = next((column for column in record.extra if column in row or column in reserved), None)
    if clash is not None:
        raise DataError(
            f"{record.source}: '{formatter}' gives the column '{clash}' a meaning of its own, and the record has an "
            "extra column of that name; rename that column"
        )
    return {**row, **record.extra}
