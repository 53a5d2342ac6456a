"""Anthropic's messages and tools as llmkit's."""

import json
from collections.abc import Sequence

from llmkit.serve.api_errors import bad_request
from llmkit.serve.schemas.anthropic import (
    AnthropicTool,
    Block,
    CountRequest,
    InputMessage,
    RedactedThinkingBlock,
    TextBlock,
    ThinkingBlock,
    ToolResultBlock,
    ToolUseBlock,
)
from llmkit.serve.schemas.chat import Function, Tool
from llmkit.serve.service import Service
from llmkit.serve.turns import Turn, make_turn
from llmkit.types import Message, ToolCall


async def read_turn(service: Service, request: CountRequest) -> Turn:
    """The conversation, ready for the engine.

    Raises:
        ApiError: 400.
        DataError: the chat template refuses the conversation.
    """
    messages, begun = _messages(request)
    choice = request.tool_choice
    if choice is not None and choice.type == "tool" and choice.name is None:
        raise bad_request("tool_choice.name: Field required", "tool_choice.name")
    return await make_turn(
        service,
        messages,
        tools=_tools(request.tools),
        choice=None if choice is None else {"auto": "auto", "any": "required", "none": "none"}.get(choice.type),  # type: ignore[arg-type]
        named=choice.name if choice is not None and choice.type == "tool" else None,
        parallel=choice is None or not choice.disable_parallel_tool_use,
        begun=begun,
    )


def _messages(request: CountRequest) -> tuple[list[Message], str]:
    """The conversation, and the first words of the answer when it ends with the assistant's."""
    system = request.system if isinstance(request.system, str) else _join(request.system or ())
    turns: list[Message] = []
    for place, message in enumerate(request.messages):
        if message.role == "system":  # there is one place for it
            system = "\n\n".join(filter(None, (system, _only_text(message, place))))
        else:
            turns += _turns(message, place)
    if not turns:
        raise bad_request("messages: at least one message of the user is needed", "messages")
    begun = ""
    last = turns[-1]
    if last.role == "assistant" and not last.tool_calls:
        begun = last.text.rstrip()
        turns.pop()
        if not turns:
            raise bad_request("messages: at least one message of the user is needed", "messages")
    return ([Message("system", system)] if system else []) + turns, begun


def _turns(message: InputMessage, place: int) -> list[Message]:
    if isinstance(message.content, str):
        return [Message(message.role, message.content)]
    if message.role == "assistant":
        return [_assistant(message.content, place)]
    results = [block for block in message.content if isinstance(block, ToolResultBlock)]
    rest = [block for block in message.content if not isinstance(block, ToolResultBlock)]
    turns = [Message("tool", _result(block, place), tool_call_id=block.tool_use_id) for block in results]
    if rest or not results:
        turns.append(Message("user", "".join(_text(block, f"messages.{place}") for block in rest)))
    return turns


def _assistant(blocks: Sequence[Block], place: int) -> Message:
    texts, thoughts, calls = [], [], []
    for block in blocks:
        match block:
            case ThinkingBlock():
                thoughts.append(block.thinking)
            case RedactedThinkingBlock():
                continue
            case ToolUseBlock():
                calls.append(ToolCall(block.name, json.dumps(block.input, ensure_ascii=False), block.id))
            case _:
                texts.append(_text(block, f"messages.{place}"))
    return Message("assistant", "".join(texts), tool_calls=tuple(calls), reasoning="".join(thoughts) or None)


def _result(block: ToolResultBlock, place: int) -> str:
    if block.content is None or isinstance(block.content, str):
        return block.content or ""
    return "".join(_text(part, f"messages.{place}.tool_result") for part in block.content)


def _only_text(message: InputMessage, place: int) -> str:
    if isinstance(message.content, str):
        return message.content
    return "".join(_text(block, f"messages.{place}") for block in message.content)


def _text(block: object, place: str) -> str:
    if isinstance(block, TextBlock):
        return block.text
    kind = type(block).__struct_config__.tag  # type: ignore[attr-defined] - every block is a struct
    raise bad_request(f"{place}: a block of type '{kind}' has no place here; this model takes text alone", place)


def _join(blocks: Sequence[TextBlock]) -> str:
    return "\n\n".join(block.text for block in blocks)


def _tools(tools: Sequence[AnthropicTool] | None) -> list[Tool] | None:
    if not tools:
        return None
    for tool in tools:
        if tool.type not in (None, "custom"):
            raise bad_request(
                f"tools: '{tool.type}' runs on Anthropic's servers; give tools with an input_schema", "tools"
            )
        if tool.input_schema is None:
            raise bad_request(f"tools: '{tool.name}' needs an input_schema", "tools")
    return [
        Tool(function=Function(name=tool.name, description=tool.description, parameters=tool.input_schema))
        for tool in tools
    ]
