"""Read and write messages."""

from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.data.formatters.cells import from_cell, is_written_list
from llmkit.data.formatters.columns import TEXT_TABLE, Place
from llmkit.data.formatters.content import as_content, write_content
from llmkit.data.formatters.tool_calls import as_tool_calls, calls_in_text, write_tool_call
from llmkit.data.formatters.turn_forms import TurnForm, form_of
from llmkit.data.formatters.weights import weight_of
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Role, ToolCall

REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
"""Every spelling of what the assistant thinks before it speaks."""
NOT_READ = ("image", "images", "audio", "audios", "video", "videos", "refusal")
"""What a message may hold outside its content. Leaving it out would train on something else than the row says."""


def as_messages(value: Any, place: Place, form: TurnForm | None = None) -> tuple[Message, ...]:
    """A list of messages; a list written as text, as in a CSV cell, is read too.

    Args:
        value: of a column.
        place: where it is.
        form: keys and words of the messages; None tells by the keys of each whether it is OpenAI's or ShareGPT's.
    Raises:
        DataError: it is not such a list, or is empty; names the message.
    """
    value = from_cell(value, place, "a list of messages")
    if not isinstance(value, list | tuple):
        raise DataError(f"{place} must be a list of messages, this is {kind_of(value)}")
    if not value:
        raise DataError(f"{place} is an empty list; a conversation needs a message")
    return tuple(as_message(item, place.at(index), form) for index, item in enumerate(value))


def as_message(item: Any, place: Place, form: TurnForm | None = None) -> Message:
    """One message: who says what, tool calls and reasoning, with an optional loss weight.

    Raises:
        DataError: the role is unknown, there is no content, or something in it has no meaning there.
    """
    if not isinstance(item, Mapping):
        raise DataError(f"{place} must be an object with 'role' and 'content', this is {kind_of(item)}")
    form = form or form_of(item)
    role, is_call = form.role(item, place)
    content = item.get(form.content_key)
    if len(item) == 2 and isinstance(content, str) and not is_call:
        # Most messages of most data sets are a role and a text; the rest has nothing to find in them.
        return Message(role, content)
    beyond = next((key for key in NOT_READ if item.get(key)), None)
    if beyond is not None:
        raise DataError(f"{place} has '{beyond}' beside its content; put it into the content as a part")
    calls = as_tool_calls(item, place)
    if is_call and not calls:
        calls, content = calls_in_text(content, place.of(form.content_key)), ""
    reasoning = _reasoning(item, place)
    tool_call_id = _text_or_none(item, "tool_call_id", place)
    _check_role(role, calls, reasoning, tool_call_id, place)
    if content is None:
        if not calls:
            raise DataError(f"{place} has no content; give it text, '' for none")
        content = ""
    return Message(
        role,
        as_content(content, place.of(form.content_key)),
        weight_of(item, place),
        calls,
        tool_call_id,
        _text_or_none(item, "name", place),
        reasoning,
    )


def text_or_messages(value: Any, role: Role, place: Place) -> tuple[Message, ...]:
    """Text as a message of `role`; one message, or a list of them, as they are, also where a table's cell writes them.

    Raises:
        DataError: it is none of these.
    """
    if isinstance(value, list | tuple) or _is_written_conversation(value, place):
        return as_messages(value, place)
    if isinstance(value, Mapping):
        return (as_message(value, place),)
    if isinstance(value, str):
        return (Message(role, value),)
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return (Message(role, str(value)),)
    raise DataError(f"{place} must be text or messages, this is {kind_of(value)}")


def write_message(message: Message) -> dict[str, Any]:
    """The message in OpenAI's form, with `weight` and `reasoning_content` where it has them."""
    written: dict[str, Any] = {"role": message.role, "content": write_content(message.content)}
    if message.tool_calls:
        # OpenAI's own rows have null where the assistant calls tools and says nothing.
        written["content"] = written["content"] or None
        written["tool_calls"] = [write_tool_call(call) for call in message.tool_calls]
    optional = {
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "reasoning_content": message.reasoning,
        "weight": message.weight,
    }
    return {**written, **{key: value for key, value in optional.items() if value is not None}}


def write_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages in OpenAI's form."""
    return [write_message(message) for message in messages]


def is_plain(messages: Sequence[Message], role: Role) -> bool:
    """Whether the messages are one text of `role` and nothing else."""
    return (
        len(messages) == 1
        and isinstance(messages[0].content, str)
        and messages[0] == Message(role, messages[0].content)
    )


def write_text_or_messages(messages: Sequence[Message], role: Role) -> str | list[dict[str, Any]]:
    """Plain text where that says it all, else messages."""
    return messages[0].text if is_plain(messages, role) else write_messages(messages)


def _is_written_conversation(value: Any, place: Place) -> bool:
    """Whether a cell of a table of text holds messages; other files hold them as they are, and text means text."""
    return (
        is_written_list(value)
        and TEXT_TABLE.search(place.source.path) is not None
        and any(f"{quote}role{quote}" in value for quote in ("'", '"'))
    )


def _check_role(
    role: Role, calls: tuple[ToolCall, ...], reasoning: str | None, tool_call_id: str | None, place: Place
) -> None:
    """Stop at what only another role can have; templates would leave it out without a word."""
    if role != "assistant" and (calls or reasoning is not None):
        what = "calls tools" if calls else "has reasoning"
        raise DataError(f"{place} {what}, and its role is '{role}'; only the assistant does that")
    if role != "tool" and tool_call_id is not None:
        raise DataError(f"{place} has 'tool_call_id', and its role is '{role}'; only a tool answers a call")


def _reasoning(item: Mapping[str, Any], place: Place) -> str | None:
    found = {key: item[key] for key in REASONING_KEYS if item.get(key)}
    for key, value in found.items():
        if not isinstance(value, str):
            raise DataError(f"{place.of(key)} must be text, this is {kind_of(value)}")
    if len(set(found.values())) > 1:
        raise DataError(f"{place} has {' and '.join(found)} that differ; keep one of them")
    return next(iter(found.values()), None)


def _text_or_none(item: Mapping[str, Any], key: str, place: Place) -> str | None:
    value = item.get(key)
    if value is None or isinstance(value, str):
        return value or None
    raise DataError(f"{place.of(key)} must be text, this is {kind_of(value)}")
