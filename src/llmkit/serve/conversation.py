"""OpenAI's messages and tools as llmkit's, and what the choice of a tool asks of an answer."""

import json
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from llmkit.serve.api_errors import bad_request
from llmkit.serve.parsing.answers import Reading
from llmkit.serve.sampling import json_structure
from llmkit.serve.schemas.chat import (
    AssistantMessage,
    ChatMessage,
    Content,
    DeveloperMessage,
    RefusalPart,
    SystemMessage,
    TextPart,
    Tool,
    ToolMessage,
)
from llmkit.types import Message, Structure, ToolCall

Choice = Literal["none", "auto", "required"]

MAX_CALLS = 16
"""Most calls of a forced answer: a weak model would go on until it is cut off, and nobody could read the last one."""


def read_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """The conversation.

    Raises:
        ApiError: 400, a message holds what no model here takes.
    """
    return [_message(message, f"messages[{place}]") for place, message in enumerate(messages)]


def tools_text(tools: Sequence[Tool] | None) -> str | None:
    """The tools as templates get them: JSON text of a list of schemas; None when there are none."""
    if not tools:
        return None
    return json.dumps([_without_none(msgspec.to_builtins(tool)) for tool in tools], ensure_ascii=False)


def read_choice(
    tools: Sequence[Tool] | None, choice: Choice | str | None, named: str | None, *, parallel: bool, parser: str | None
) -> tuple[Reading, Structure | None]:
    """How answers are to be read, and what they must look like, for a choice of tools.

    Args:
        tools: what the request offers.
        choice: whether the model may call; None is `auto` when there are tools.
        named: the tool that it must call.
        parallel: whether it may make several calls in one answer.
        parser: how the model writes calls; None when nobody knows.
    Raises:
        ApiError: 400, the choice does not fit the tools, or nobody can read the model's calls.
    """
    if not tools:
        if named is not None or choice not in (None, "none", "auto"):
            raise bad_request("tool_choice needs tools, and there are none", "tool_choice")
        return Reading(), None
    names = [tool.function.name for tool in tools]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise bad_request(f"tools: '{twice}' is there more than once", "tools")
    if named is not None:
        if named not in names:
            raise bad_request(f"tool_choice: no tool named '{named}'; there are: {', '.join(names)}", "tool_choice")
        return Reading(named=named, parallel=parallel), json_structure(_parameters(tools[names.index(named)]))
    if choice == "none":
        return Reading(), None
    if choice == "required":
        return Reading("forced", parallel=parallel), json_structure(_calls_schema(tools, parallel=parallel))
    if parser is None:
        raise bad_request(
            "nobody knows how this model writes tool calls: its chat template has no known marker. Start the server "
            "with --tool-parser hermes, llama3 or mistral, or force a call with tool_choice",
            "tools",
        )
    return Reading(parser, parallel=parallel), None


def _calls_schema(tools: Sequence[Tool], *, parallel: bool) -> dict[str, Any]:
    """A list of calls; the name first, so that arguments can be given on while they come."""
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, "parameters": _parameters(tool)},
            "required": ["name", "parameters"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    most = MAX_CALLS if parallel else 1
    schema: dict[str, Any] = {"type": "array", "minItems": 1, "maxItems": most, "items": {"anyOf": calls}}
    definitions: dict[str, Any] = {}
    for call in calls:  # references are looked up from the top
        properties: Any = call["properties"]
        for key in ("$defs", "definitions"):
            if isinstance(found := properties["parameters"].get(key), dict):
                definitions.setdefault(key, {}).update(found)
    return schema | definitions


def _parameters(tool: Tool) -> dict[str, Any]:
    return tool.function.parameters or {"type": "object", "properties": {}}


def _message(message: ChatMessage, place: str) -> Message:
    text = _text(message.content, f"{place}.content")
    match message:
        case SystemMessage() | DeveloperMessage():
            return Message("system", text, name=message.name)
        case ToolMessage():
            return Message("tool", text, tool_call_id=message.tool_call_id, name=message.name)
        case AssistantMessage():
            calls = tuple(
                ToolCall(call.function.name, call.function.arguments, call.id) for call in message.tool_calls or ()
            )
            reasoning = message.reasoning_content or message.reasoning or None
            return Message("assistant", text, tool_calls=calls, name=message.name, reasoning=reasoning)
        case _:
            return Message("user", text, name=message.name)


def _text(content: Content, place: str) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    texts: list[str] = []
    for part in content:
        if isinstance(part, TextPart):
            texts.append(part.text)
        elif isinstance(part, RefusalPart):
            texts.append(part.refusal)
        else:
            raise bad_request(f"{place}: this model takes text alone, no {type(part).__struct_config__.tag}", place)
    return "".join(texts)


def _without_none(value: Any) -> Any:
    """Without the fields that were not given; templates write what is there. A tool's own schema stays as it is."""
    function = {key: one for key, one in value["function"].items() if one is not None}
    return {"type": "function", "function": function}
