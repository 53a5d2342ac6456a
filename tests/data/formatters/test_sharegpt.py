"""ShareGPT in both dialects."""

import json
from typing import Any

import pytest

from llmkit.data.formatters import sharegpt
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record, ToolCall

SHAREGPT = sharegpt.build(sharegpt.Config())
CALL = {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'}


def say(tag: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"from": tag, "value": value, **more}


def read(*turns: dict[str, Any], **columns: Any) -> Record:
    return SHAREGPT.to_record(row({"conversations": list(turns), **columns}))


def test_system_tools_and_tags():
    record = read(
        say("human", "1+1?"),
        CALL,
        say("observation", "2"),
        say("gpt", "It is 2.", loss=False),
        system="Brief.",
        tools='[{"name": "add"}]',
        id=3,
    )
    assert record.messages == (
        Message("system", "Brief."),
        Message("user", "1+1?"),
        Message("assistant", "", tool_calls=(ToolCall("add", '{"a": 1}'),)),
        Message("tool", "2"),
        Message("assistant", "It is 2.", 0.0),
    )
    assert record.tools == '[{"type": "function", "function": {"name": "add"}}]'
    assert record.extra == {"id": 3}


def test_several_calls_in_one_turn_with_ids():
    calls = [{"name": "add", "arguments": {"a": 1}, "id": "c1"}, {"name": "now", "arguments": "{}"}]
    record = read(say("function_call", json.dumps(calls)), say("tool", "2", tool_call_id="c1", name="add"))
    assert record.messages[0].tool_calls == (ToolCall("add", '{"a": 1}', "c1"), ToolCall("now", "{}"))
    assert record.messages[1] == Message("tool", "2", tool_call_id="c1", name="add")
    assert SHAREGPT.to_record(row(SHAREGPT.from_record(record))) == record


def test_the_dialect_of_pairs():
    pairs = [{"human": "a", "assistant": "b"}, {"assistant": "d", "human": "c"}, {"human": "e", "assistant": None}]
    record = SHAREGPT.to_record(row({"conversation": pairs, "system": "s"}))
    assert [message.role for message in record.messages] == ["system"] + ["user", "assistant"] * 2 + ["user"]
    assert [message.text for message in record.messages] == ["s", "a", "b", "c", "d", "e"]
    assert read({"user": "a", "bot": "b"}).messages == (Message("user", "a"), Message("assistant", "b"))


def test_tags_and_keys_of_ones_own():
    config = sharegpt.Config(
        conversations_column="chat",
        role_key="who",
        content_key="says",
        user_tag="Kunde",
        assistant_tag="Berater",
        function_tag="Aufruf",
        observation_tag="Ergebnis",
        system_tag="Regel",
    )
    formatter = sharegpt.build(config)
    turns = [("Regel", "s"), ("Kunde", "q"), ("Aufruf", CALL["value"]), ("Ergebnis", "2"), ("Berater", "a")]
    values = {"chat": [{"who": who, "says": says} for who, says in turns]}
    record = formatter.to_record(row(values))
    assert [message.role for message in record.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert record.messages[2].tool_calls == (ToolCall("add", '{"a": 1}'),)
    assert formatter.from_record(record) == values
    assert formatter.to_record(row({"chat": [{"who": "human", "says": "q"}]})).messages == (Message("user", "q"),)


def test_a_known_tag_can_be_given_another_meaning():
    formatter = sharegpt.build(sharegpt.Config(observation_tag="function_call", function_tag="call"))
    record = formatter.to_record(row({"conversations": [say("call", CALL["value"]), say("function_call", "2")]}))
    assert record.messages[1] == Message("tool", "2")


def test_pairs_of_answers_and_labels():
    record = read(say("human", "q"), chosen=say("gpt", "yes"), rejected=[say("gpt", "no")], label=None)
    assert (record.chosen, record.rejected) == ((Message("assistant", "yes"),), (Message("assistant", "no"),))
    assert read(say("human", "q"), chosen="yes", rejected="no").chosen == (Message("assistant", "yes"),)
    assert read(say("human", "q"), say("gpt", "a"), label="0").label is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"conversations": [say("wizard", "q")]}, "conversations[0] has the role 'wizard'; known roles: system, user"),
        (
            {"conversations": [say("function_calls", "q")]},
            "conversations[0] has the role 'function_calls'; known roles: system, user, assistant, tool. "
            "Did you mean 'function_call'?",
        ),
        (
            {"conversations": [say("function_call", "add(1)")]},
            "conversations[0].value must be a tool call as JSON, {name, arguments} or a list of them, "
            "this is text (not valid JSON at character 1",
        ),
        (
            {"conversations": [say("function_call", '{"arguments": {}}')]},
            "conversations[0].value has no 'name' of the tool that it calls",
        ),
        ({"conversations": [say("function_call", "[]")]}, "conversations[0].value is an empty list of tool calls"),
        (
            {"conversations": [say("function_call", '{"name": "f", "arguments": "x"}')]},
            "conversations[0].value.arguments is text that is not valid JSON",
        ),
        ({"conversations": [say("observation", {"a": 1})]}, "conversations[0].value is an object; it must be text"),
        ({"conversations": [{"human": "q", "score": "a"}]}, "conversations[0] has the key 'score', which is no role"),
        (
            {"conversations": [{"human": "q"}, "a"]},
            "conversations[1] must be an object with 'human' and 'assistant', this is text",
        ),
        ({"conversations": [{"human": ["q"]}]}, "conversations[0].human must be text, this is a list"),
        ({"conversations": [say("human", "q")], "chosen": say("gpt", "a")}, "no 'rejected'"),
        (
            {"conversations": [say("human", "q")], "chosen": say("human", "q"), "rejected": "no"},
            "chosen must be the assistant's answer; its role is 'user'",
        ),
        (
            {"conversations": [say("human", "q")], "chosen": "a", "rejected": "a"},
            "the chosen and the rejected answer are the same",
        ),
        ({"messages": [{"role": "user", "content": "q"}]}, "messages[0] has the role None"),
        ({"turns": []}, "no 'conversations'; found turns."),
    ],
)
def test_bad_turns_are_named(error_of: Any, values: dict, message: str):
    assert error_of(SHAREGPT, values).startswith(message)


@pytest.mark.parametrize(
    ("message", "unheld"),
    [
        (Message("assistant", "a", reasoning="hm"), "reasoning; write it as 'messages'"),
        (
            Message("assistant", "Let me see.", tool_calls=(ToolCall("f", "{}"),)),
            "a turn that says something and calls",
        ),
        (Message("system", "s"), "a system message after the first message"),
    ],
)
def test_what_sharegpt_cannot_hold(message: Message, unheld: str):
    record = Record((Message("user", "q"), message), row({}, 17, "train.jsonl").source)
    with pytest.raises(DataError, match=rf"^train\.jsonl:17: 'sharegpt' cannot hold {unheld}"):
        SHAREGPT.from_record(record)
