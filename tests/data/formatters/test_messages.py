"""Conversations in OpenAI's form."""

import json
from typing import Any

import pytest

from llmkit.data.formatters import messages
from llmkit.testing.samples import row
from llmkit.types import Message, Part, ToolCall

MESSAGES = messages.build(messages.Config())


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def read(*turns: dict[str, Any], **columns: Any) -> tuple[Message, ...]:
    return MESSAGES.to_record(row({"messages": list(turns), **columns})).messages


def test_a_conversation_with_answer_label_and_extra_columns():
    values = {
        "messages": [turn("developer", "s"), turn("user", "q"), turn("assistant", "a")],
        "answer": 72,
        "id": 5,
        "label": "true",
        "parallel_tool_calls": False,
    }
    record = MESSAGES.to_record(row(values))
    assert record.messages == (Message("system", "s"), Message("user", "q"), Message("assistant", "a"))
    assert record.answer == "72"
    assert record.label is True
    assert record.extra == {"id": 5, "parallel_tool_calls": False}
    assert record.source == row({}).source


@pytest.mark.parametrize(
    ("spelling", "weight"),
    [
        ({"weight": 0}, 0.0),
        ({"weight": 1}, 1.0),
        ({"loss": False}, 0.0),
        ({"loss_weight": 0.25}, 0.25),
        ({"loss_scale": "2"}, 2.0),
        ({"train": True}, 1.0),
        ({"trainable": "false"}, 0.0),
        ({"train": True, "weight": 1.0}, 1.0),
        ({"weight": None}, None),
        ({}, None),
    ],
)
def test_every_spelling_of_a_weight_is_one_number(spelling: dict, weight: float | None):
    assert read(turn("assistant", "a", **spelling)) == (Message("assistant", "a", weight),)
    part = {"type": "text", "text": "a", **spelling}
    expected = "a" if weight is None else (Part(text="a", weight=weight),)
    assert read(turn("assistant", [part])) == (Message("assistant", expected),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", ""),
        ([], ""),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        (["a", "b"], "ab"),
        ([{"type": "input_text", "text": "a"}, {"type": "refusal", "refusal": "b"}], "ab"),
        (
            [{"type": "text", "text": "a", "weight": 0}, {"type": "text", "text": "b"}],
            (Part(text="a", weight=0.0), Part(text="b")),
        ),
        (
            [{"type": "image_url", "image_url": {"url": "http://a/b.png", "detail": "low"}}],
            (Part("image", url="http://a/b.png"),),
        ),
        ([{"type": "image_url", "image_url": "http://a/b.png"}], (Part("image", url="http://a/b.png"),)),
        ([{"type": "image", "image": "http://a/b.png"}], (Part("image", url="http://a/b.png"),)),
        ([{"type": "image", "url": "http://a/b.png"}], (Part("image", url="http://a/b.png"),)),
        ([{"type": "video", "path": "/c.mp4"}, "?"], (Part("video", url="/c.mp4"), Part(text="?"))),
        (
            [{"type": "input_audio", "input_audio": {"data": "UklG", "format": "mp3"}}],
            (Part("audio", url="data:audio/mp3;base64,UklG"),),
        ),
        ([{"type": "image", "image": None, "text": None}], (Part("image"),)),
    ],
)
def test_content_as_parts(content: Any, expected: Any):
    assert read(turn("user", content))[0].content == expected


def test_tool_calls_results_and_reasoning():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}
    found = read(
        turn("user", "1+1?"),
        turn("assistant", None, tool_calls=[call, {"name": "add", "arguments": {"a": "é"}}], reasoning_content="Hm."),
        turn("tool", "2", tool_call_id="c1", name="add"),
        turn("assistant", "2", tool_calls=[], thinking="", reasoning=None),
    )
    assert found[1] == Message(
        "assistant", "", tool_calls=(ToolCall("add", '{"a":1}', "c1"), ToolCall("add", '{"a": "é"}')), reasoning="Hm."
    )
    assert found[2] == Message("tool", "2", tool_call_id="c1", name="add")
    assert found[3] == Message("assistant", "2")


def test_the_older_form_of_a_call():
    found = read(
        turn("assistant", None, function_call={"name": "add", "arguments": "{}"}),
        turn("function", "2", name="add"),
    )
    assert found == (Message("assistant", "", tool_calls=(ToolCall("add", "{}"),)), Message("tool", "2", name="add"))


@pytest.mark.parametrize(
    ("given", "read_as"),
    [(None, "{}"), ("", "{}"), ({}, "{}"), ('{"a": null}', '{"a": null}'), ({"a": None}, '{"a": null}')],
)
def test_arguments_become_json_text(given: Any, read_as: str):
    (message,) = read(turn("assistant", "", tool_calls=[{"name": "f", "arguments": given}]))
    assert message.tool_calls[0].arguments == read_as


def test_tools_are_one_form_of_json_text():
    wrapped = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    bare = {"name": "add", "parameters": {"type": "object"}}
    expected = json.dumps([wrapped])
    conversation = {"messages": [turn("user", "q")]}
    for tools in ([wrapped], [bare], json.dumps([wrapped], indent=2), json.dumps([bare])):
        assert MESSAGES.to_record(row({**conversation, "tools": tools})).tools == expected
    for nothing in (None, "", [], "[]", float("nan")):
        assert MESSAGES.to_record(row({**conversation, "tools": nothing})).tools is None


def test_nulls_that_a_table_put_into_objects_are_left_out():
    # Arrow gives every object of a column the keys of all others.
    tools = [
        {"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "any"}, "b": None}}}}
    ]  # fmt: skip
    calls = [{"id": None, "type": "function", "function": {"name": "f", "arguments": {"a": "x", "b": None}}}]
    values = {"messages": [turn("assistant", None, tool_calls=calls)], "tools": tools}
    for path in ("part.parquet", "squad/plain[train]"):
        record = MESSAGES.to_record(row(values, path=path))
        assert record.messages[0].tool_calls == (ToolCall("f", '{"a": "x"}'),)
        assert json.loads(record.tools or "")[0]["function"]["parameters"] == {"properties": {"a": {"type": "any"}}}
    assert '"b": null' in (MESSAGES.to_record(row(values, path="part.jsonl.gz")).tools or "")


def test_a_conversation_in_another_column_with_other_keys():
    formatter = messages.build(messages.Config(messages_column="chat", role_key="who", content_key="says"))
    values = {"chat": [{"who": "user", "says": "hi"}, {"who": "bot", "says": "ho", "weight": 0.5}]}
    record = formatter.to_record(row(values))
    assert record.messages == (Message("user", "hi"), Message("assistant", "ho", 0.5))
    written = formatter.from_record(record)
    assert written == {"chat": [{"who": "user", "says": "hi"}, {"who": "assistant", "says": "ho", "weight": 0.5}]}
    assert MESSAGES.to_record(row({"conversations": [turn("user", "hi")]})).messages == (Message("user", "hi"),)


def test_a_label_that_means_something_else_can_be_left_alone():
    formatter = messages.build(messages.Config(label_column=None))
    record = formatter.to_record(row({"messages": [turn("user", "hi")], "label": 7}))
    assert (record.label, record.extra) == (None, {"label": 7})


def test_what_is_written_is_openais_form():
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    values = {
        "messages": [
            turn("system", "s"),
            turn(
                "user", [{"type": "image_url", "image_url": {"url": "http://a/b.png"}}, {"type": "text", "text": "?"}]
            ),
            turn("assistant", None, tool_calls=[call]),
            turn("tool", "2", tool_call_id="c1"),
            turn("assistant", "2", weight=0.5),
        ],
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "parallel_tool_calls": True,
    }
    assert MESSAGES.from_record(MESSAGES.to_record(row(values))) == values
