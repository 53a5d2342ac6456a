"""What a chat template is given: a conversation as plain JSON values."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from llmkit.errors import DataError
from llmkit.types import Message, Part, Source, ToolCall


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation to render.

    Attributes:
        messages: what is said.
        tools: JSON text of the list of tool schemas; None when there are none.
        place: where it came from, for errors.
        variables: JSON text of an object with what else the template reads, such as `enable_thinking`.
    """

    messages: tuple[Message, ...]
    tools: str | None = None
    place: Source | None = None
    variables: str | None = None

    def first(self, count: int) -> "Chat":
        """The conversation's first `count` messages."""
        return replace(self, messages=self.messages[:count])

    def texts(self) -> Iterator[str]:
        """Every text in it that a template may write."""
        if self.tools is not None:
            yield _unescaped(self.tools)
        for message in self.messages:
            yield message.text
            yield from filter(None, (message.reasoning, message.name, message.tool_call_id))
            for call in message.tool_calls:
                yield call.name
                yield _unescaped(call.arguments)
                yield call.id or ""

    def edited(self, edit: Callable[[str], str]) -> "Chat":
        """The conversation with every text of it changed."""
        tools = None if self.tools is None else edit(_unescaped(self.tools))
        return replace(self, messages=tuple(_edited(message, edit) for message in self.messages), tools=tools)


def _edited(message: Message, edit: Callable[[str], str]) -> Message:
    content: str | tuple[Part, ...] = edit(message.text)
    if message.media:
        content = tuple(replace(part, text=edit(part.text)) for part in message.parts)
    return replace(
        message,
        content=content,
        name=message.name and edit(message.name),
        reasoning=message.reasoning and edit(message.reasoning),
        tool_call_id=message.tool_call_id and edit(message.tool_call_id),
        tool_calls=tuple(
            ToolCall(edit(call.name), edit(_unescaped(call.arguments)), call.id and edit(call.id))
            for call in message.tool_calls
        ),
    )


def as_turn(message: Message) -> dict[str, Any]:
    """A message as templates know it; what it has not is absent, since many of them would write `None`."""
    turn: dict[str, Any] = {"role": message.role, "content": _content(message)}
    if message.name is not None:
        turn["name"] = message.name
    if message.reasoning is not None:
        # The key that most templates read, and gpt-oss's.
        turn["reasoning_content"] = turn["thinking"] = message.reasoning
    if message.tool_calls:
        turn["tool_calls"] = [
            {
                "type": "function",
                **({} if call.id is None else {"id": call.id}),
                "function": {"name": call.name, "arguments": _arguments(call.arguments)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def parse_tools(chat: Chat) -> list[dict[str, Any]] | None:
    """The tool schemas as templates know them; None when there are none.

    Raises:
        DataError: they are not a JSON list of objects.
    """
    if chat.tools is None:
        return None
    tools = _parse(chat.tools)
    if not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        where = f"{chat.place}: " if chat.place else ""
        raise DataError(f"{where}the tools must be a JSON list of objects, each the schema of a tool")
    # A template that asks whether there are tools takes an empty list for some.
    return tools or None


def parse_variables(chat: Chat) -> dict[str, Any]:
    """What else the template reads.

    Raises:
        DataError: it is not a JSON object.
    """
    variables = _parse(chat.variables or "{}")
    if not isinstance(variables, dict):
        raise DataError(f"variables of the chat template must be a JSON object, not {str(chat.variables)[:60]}")
    return variables


def check_has_messages(messages: Sequence[Message], place: Source | None) -> None:
    """Refuse a conversation without messages.

    Raises:
        DataError: it has none.
    """
    if not messages:
        raise DataError(f"{place}: the row has no messages" if place else "the conversation has no messages")


def _content(message: Message) -> str | list[dict[str, str]]:
    if isinstance(message.content, str):
        return message.content
    if not message.media:
        return message.text
    return [
        {"type": "text", "text": part.text} if part.type == "text" else {"type": part.type} for part in message.content
    ]


def _arguments(text: str) -> Any:
    """Arguments as an object, which templates write in their own way; other text as it is."""
    parsed = _parse(text)
    return parsed if isinstance(parsed, dict) else text


@lru_cache(maxsize=256)
def _unescaped(text: str) -> str:
    """JSON text as a template would write it: an escape may spell a special token."""
    parsed = _parse(text)
    return text if parsed is None else json.dumps(parsed, ensure_ascii=False)


@lru_cache(maxsize=256)
def _parse(text: str) -> Any:
    """JSON text's value, shared: the templates' sandbox cannot change it. None for other text."""
    try:
        return json.loads(text)
    except ValueError:
        return None
