"""The turns of a ShareGPT conversation, in both of its dialects."""

from collections.abc import Mapping
from typing import Any

from llmkit.data.formatters.cells import from_cell
from llmkit.data.formatters.columns import Place, as_text
from llmkit.data.formatters.conversation import as_messages
from llmkit.data.formatters.tool_calls import write_calls_as_text
from llmkit.data.formatters.turn_forms import TurnForm
from llmkit.data.kinds import kind_of
from llmkit.errors import DataError
from llmkit.types import Message, Record, Role

ORDER: Mapping[Role, int] = {"system": 0, "user": 1, "tool": 1, "assistant": 2}
"""Who speaks first in a pair of `{human, assistant}`."""


def as_turns(value: Any, place: Place, form: TurnForm) -> tuple[Message, ...]:
    """A list of `{from, value}`, or of `{human, assistant}` pairs.

    Raises:
        DataError: it is neither, or is empty; names the turn.
    """
    value = from_cell(value, place, "a list of turns")
    if isinstance(value, list | tuple) and value and is_pair(value[0], form):
        return tuple(message for index, pair in enumerate(value) for message in _of_pair(pair, place.at(index), form))
    return as_messages(value, place, form)


def is_pair(item: Any, form: TurnForm) -> bool:
    """Whether an item is a pair of turns: its keys are roles."""
    return (
        isinstance(item, Mapping)
        and form.role_key not in item
        and any(isinstance(key, str) and key.lower() in form.roles for key in item)
    )


def is_turn(item: Any, form: TurnForm) -> bool:
    """Whether an item is one turn."""
    return isinstance(item, Mapping) and form.role_key in item and form.content_key in item


def write_turn(message: Message, tags: Mapping[str, str], form: TurnForm, record: Record) -> dict[str, Any]:
    """One turn as `{from, value}`, with `weight`, `name` and `tool_call_id` where it has them.

    Args:
        message: without reasoning and media.
        tags: the words for user, assistant, tool, system and `calls`.
        form: has the keys.
        record: for messages.
    Raises:
        DataError: the turn says something and calls tools.
    """
    if message.tool_calls and message.text:
        raise DataError(
            f"{record.source}: 'sharegpt' cannot hold a turn that says something and calls tools; write it as "
            "'messages'"
        )
    tag = tags["calls"] if message.tool_calls else tags[message.role]
    text = write_calls_as_text(message.tool_calls) if message.tool_calls else message.text
    optional = {"weight": message.weight, "name": message.name, "tool_call_id": message.tool_call_id}
    return {
        form.role_key: tag,
        form.content_key: text,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _of_pair(pair: Any, place: Place, form: TurnForm) -> list[Message]:
    if not isinstance(pair, Mapping):
        raise DataError(f"{place} must be an object with 'human' and 'assistant', this is {kind_of(pair)}")
    messages: list[Message] = []
    for key, value in pair.items():
        role = form.roles.get(str(key).lower())
        if role is None:
            known = ", ".join(form.roles)
            raise DataError(f"{place} has the key '{key}', which is no role; known roles: {known}")
        # A table has null for a question that was not answered.
        if value is not None:
            messages.append(Message(role, as_text(value, place.of(str(key)))))
    return sorted(messages, key=lambda message: ORDER[message.role])
