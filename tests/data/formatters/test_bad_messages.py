"""What is wrong in a message is named, with its place in the row."""

from typing import Any

import pytest

from llmkit.data.formatters import messages

NAN = float("nan")
CALL = {"name": "f", "arguments": {"a": 1}}


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def calling(arguments: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "content": None, "tool_calls": [call]}]}


FAULTS = {
    "content as an object": (
        chat(("user", {"text": "q"})),
        "messages[0].content is an object; it must be text or a list",
    ),
    "content as NaN": (
        chat(("user", NAN)),
        "messages[0].content is NaN, a table's missing value; it must be text",
    ),
    "a part of another tool's form": (
        chat(("assistant", [{"type": "tool_use"}])),
        "messages[0].content[0] is of the type 'tool_use'; known types: text, image, image_url,",
    ),
    "a part without text": (
        chat(("user", [{"type": "text"}])),
        "messages[0].content[0].text must be text, this is null",
    ),
    "a medium in a key that is not known": (
        chat(("user", [{"type": "image", "file_id": "x"}])),
        "messages[0].content[0] does not say where its image is in 'url', but has 'file_id'",
    ),
    "media beside the content": (
        {"messages": [{"role": "user", "content": "q", "images": ["a"]}]},
        "messages[0] has 'images' beside its content; put it into the content as a part",
    ),
    "arguments that are a number": (
        calling(1),
        "messages[0].tool_calls[0].arguments must be an object, or JSON text of one; this is a number",
    ),
    "a call without a name": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}]},
        "messages[0].tool_calls[0] has no 'name' of the tool that it calls",
    ),
    "a call of another type": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": [{"type": "custom"}]}]},
        "messages[0].tool_calls[0] is a call of the type 'custom'; only 'function' calls can be trained",
    ),
    "two forms of calls": (
        {"messages": [{"role": "assistant", "tool_calls": [CALL], "function_call": CALL}]},
        "messages[0] has 'tool_calls' and 'function_call'; keep one of them",
    ),
    "a user that calls tools": (
        {"messages": [{"role": "user", "content": "q", "tool_calls": [CALL]}]},
        "messages[0] calls tools, and its role is 'user'; only the assistant does that",
    ),
    "a user with reasoning": (
        {"messages": [{"role": "user", "content": "q", "thinking": "hm"}]},
        "messages[0] has reasoning, and its role is 'user'",
    ),
    "two reasonings": (
        {"messages": [{"role": "assistant", "content": "a", "thinking": "x", "reasoning": "y"}]},
        "messages[0] has reasoning and thinking that differ; keep one of them",
    ),
    "weights that disagree": (
        {"messages": [{"role": "user", "content": "q", "train": True, "weight": 0}]},
        "messages[0] has weights that disagree: weight=0, train=True; keep one of them",
    ),
    "a weight below 0": (
        {"messages": [{"role": "user", "content": "q", "weight": -1}]},
        "messages[0].weight is -1; a weight is true, false or a number from 0",
    ),
    "a weight of NaN": (
        {"messages": [{"role": "user", "content": "q", "loss": NAN}]},
        "messages[0].loss is nan; a weight is",
    ),
    "an id on a user's message": (
        {"messages": [{"role": "user", "content": "q", "tool_call_id": "c"}]},
        "messages[0] has 'tool_call_id', and its role is 'user'; only a tool answers a call",
    ),
    "tools that are no list": (
        {**chat(("user", "q")), "tools": {"name": "f"}},
        "tools must be a list of tool schemas, this is an object",
    ),
    "a tool without a name": (
        {**chat(("user", "q")), "tools": [{"parameters": {}}]},
        "tools[0] is a tool schema without 'name'; it has parameters",
    ),
    "a tool that is no object": (
        {**chat(("user", "q")), "tools": ["f"]},
        "tools[0] must be a tool schema, an object with 'name' or 'function'; this is text",
    ),
    "a misspelt role": (
        chat(("asistant", "a")),
        "messages[0] has the role 'asistant'; known roles: system, user, assistant, tool. Did you mean 'assistant'?",
    ),
    "no role": ({"messages": [{"content": "q"}]}, "messages[0] has the role None; known roles"),
    "no list": ({"messages": {"role": "user"}}, "messages must be a list of messages, this is an object"),
    "no message": ({"messages": []}, "messages is an empty list; a conversation needs a message"),
    "a message that is text": (
        {"messages": ["q"]},
        "messages[0] must be an object with 'role' and 'content', this is text",
    ),
    "text that is no JSON": (
        {"messages": "hello"},
        "messages must be a list of messages, this is text (not valid JSON at character 1: Expecting value)",
    ),
    "torn JSON in a cell": (
        {"messages": '[{"role": "us'},
        "messages must be a list of messages, this is text (not valid JSON at character 11: Unterminated string",
    ),
}


@pytest.mark.parametrize(("values", "message"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named(error_of: Any, values: dict, message: str):
    assert error_of(messages.build(messages.Config()), values).startswith(message)
