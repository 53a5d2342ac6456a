"""One policy for each doubtful row: what is taken, and what is refused with its place and the way out.

| row | what becomes of it |
|---|---|
| `content: null` | taken where the message calls tools; else an error |
| content as a list | parts; text without weights becomes one text |
| the assistant speaks first | taken; a chat template that does not allow it says so |
| two system messages | OpenAI's form has them anywhere, so `messages` takes them; ShareGPT and Alpaca have one |
| the user speaks last | taken; answers before are trained, and a row without any is `data.untrained`'s |
| an empty answer | taken: the end of the turn is trained |
| arguments as an object or as text | both; text that is not JSON is an error |
| chosen equal to rejected | an error |
| an unknown role | an error with the known ones |
| odd turns, two turns of one side | taken |
| a missing column | an error with what is there and the option to name it |
| null or NaN | as if the column were missing; the word `nan` in a table of text is an error |
| JSON, or a Python list, in a cell | read |
| a row of another format | an error that says what it looks like |
"""

from typing import Any

import pytest

from llmkit.data.contract import Formatter
from llmkit.data.formatters import (
    alpaca,
    kto,
    messages,
    openai_preference,
    preference,
    prompt_completion,
    question_answer,
    sharegpt,
    text,
)
from llmkit.errors import DataError
from llmkit.testing.samples import row

ALPACA = alpaca.build(alpaca.Config())
KTO = kto.build(kto.Config())
MESSAGES = messages.build(messages.Config())
OPENAI_PREFERENCE = openai_preference.build(openai_preference.Config())
PREFERENCE = preference.build(preference.Config())
PROMPT_COMPLETION = prompt_completion.build(prompt_completion.Config())
QUESTION_ANSWER = question_answer.build(question_answer.Config())
SHAREGPT = sharegpt.build(sharegpt.Config())
TEXT = text.build(text.Config())
NAN = float("nan")
CALL = {"name": "f", "arguments": {"a": 1}}


def chat(*turns: tuple[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def share(*turns: tuple[str, Any], **columns: Any) -> dict[str, Any]:
    return {"conversations": [{"from": tag, "value": value} for tag, value in turns], **columns}


def calling(arguments: Any, content: Any = None) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"messages": [{"role": "assistant", "content": content, "tool_calls": [call]}]}


TAKEN = {
    "content: null beside tool calls": (MESSAGES, calling({}), ["assistant:"]),
    "content as a list": (MESSAGES, chat(("user", [{"type": "text", "text": "q"}])), ["user:q"]),
    "the assistant speaks first": (MESSAGES, chat(("assistant", "hi"), ("user", "q")), ["assistant:hi", "user:q"]),
    "the assistant speaks first in ShareGPT": (
        SHAREGPT,
        share(("gpt", "hi"), ("human", "q")),
        ["assistant:hi", "user:q"],
    ),
    "two systems in OpenAI's form": (
        MESSAGES,
        chat(("system", "a"), ("developer", "b"), ("user", "q"), ("system", "c")),
        ["system:a", "system:b", "user:q", "system:c"],
    ),
    "the user speaks last": (
        SHAREGPT,
        share(("human", "q"), ("gpt", "a"), ("human", "r")),
        ["user:q", "assistant:a", "user:r"],
    ),
    "an empty answer": (MESSAGES, chat(("user", "q"), ("assistant", "")), ["user:q", "assistant:"]),
    "an empty output": (ALPACA, {"instruction": "q", "output": ""}, ["user:q", "assistant:"]),
    "an empty completion": (PROMPT_COMPLETION, {"prompt": "q", "completion": ""}, ["user:q", "assistant:"]),
    "arguments as text": (MESSAGES, calling('{"a": 1}'), ["assistant:"]),
    "two turns of one side": (
        SHAREGPT,
        share(("human", "a"), ("human", "b"), ("gpt", "c"), ("gpt", "d")),
        ["user:a", "user:b", "assistant:c", "assistant:d"],
    ),
    "a call and an answer without an observation": (
        SHAREGPT,
        share(("human", "a"), ("function_call", '{"name": "f"}'), ("gpt", "c")),
        ["user:a", "assistant:", "assistant:c"],
    ),
    "NaN in columns that may be missing": (
        ALPACA,
        {"instruction": "q", "input": NAN, "output": "a", "system": NAN, "history": NAN, "label": NAN, "tools": NAN},
        ["user:q", "assistant:a"],
    ),
    "empty cells": (
        ALPACA,
        {
            "instruction": "q",
            "input": "",
            "output": "a",
            "system": "",
            "history": "",
            "label": "",
            "tools": "",
            "images": "",
        },
        ["user:q", "assistant:a"],
    ),
    "JSON in a cell": (MESSAGES, {"messages": '[{"role": "user", "content": "q"}]', "tools": "[]"}, ["user:q"]),
    "a Python list in a cell": (
        MESSAGES,
        {"messages": "[{'role': 'user', 'content': None, 'content': 'q'}]"},
        ["user:q"],
    ),
    "a number as text": (QUESTION_ANSWER, {"question": "1+1?", "answer": 2}, ["user:1+1?", "assistant:2"]),
}


@pytest.mark.parametrize(("formatter", "values", "turns"), TAKEN.values(), ids=TAKEN)
def test_what_is_taken(formatter: Formatter, values: dict, turns: list[str]):
    record = formatter.to_record(row(values))
    assert [f"{message.role}:{message.text}" for message in record.messages] == turns


REFUSED = {
    "content: null": (
        MESSAGES,
        chat(("user", "q"), ("assistant", None)),
        "messages[1] has no content; give it text, '' for none",
    ),
    "content: null of a tool": (
        MESSAGES,
        chat(("tool", None)),
        "messages[0] has no content; give it text, '' for none",
    ),
    "value: null": (SHAREGPT, share(("human", None)), "conversations[0] has no content; give it text, '' for none"),
    "two systems in ShareGPT": (
        SHAREGPT,
        share(("system", "a"), ("system", "b"), ("human", "q")),
        "conversations[1] is a system prompt; ShareGPT has one, as the first turn. Rows with system "
        "messages anywhere are read by --set formatter.name=messages",
    ),
    "a system in the middle of ShareGPT": (
        SHAREGPT,
        share(("human", "q"), ("gpt", "a"), ("system", "b")),
        "conversations[2] is a system prompt; ShareGPT has one",
    ),
    "a system column and a system turn": (
        SHAREGPT,
        share(("system", "a"), ("human", "q"), system="b"),
        "conversations[0] is a system prompt, and 'system' is one too; keep one of them, or leave the "
        "column out with --set formatter.system_column=null",
    ),
    "arguments that are not JSON": (
        MESSAGES,
        calling("a=1"),
        "messages[0].tool_calls[0].arguments is text that is not valid JSON: Expecting value at character 1",
    ),
    "chosen equal to rejected": (
        PREFERENCE,
        {"prompt": "q", "chosen": "a", "rejected": "a"},
        "the chosen and the rejected answer are the same; such a pair teaches nothing",
    ),
    "preferred equal to non-preferred": (
        OPENAI_PREFERENCE,
        {
            "input": chat(("user", "q")),
            "preferred_output": chat(("assistant", "a"))["messages"],
            "non_preferred_output": chat(("assistant", "a"))["messages"],
        },
        "the chosen and the rejected answer are the same",
    ),
    "an unknown role": (
        MESSAGES,
        chat(("user", "q"), ("oracle", "a")),
        "messages[1] has the role 'oracle'; known roles: system, user, assistant, tool.",
    ),
    "a missing column": (
        MESSAGES,
        {"mesages": [], "id": 1},
        "no 'messages'; found mesages, id. Did you mean 'mesages'? Name the column with --set "
        "formatter.messages_column=..., or choose another formatter with --set formatter.name=...",
    ),
    "null": (MESSAGES, {"messages": None}, "'messages' is null"),
    "NaN": (PROMPT_COMPLETION, {"prompt": NAN, "completion": "a"}, "'prompt' is NaN, a table's missing value"),
    "a label of KTO that is empty": (
        KTO,
        {"prompt": "q", "completion": "a", "label": ""},
        "'label' is empty; it must be true, false, 1 or 0",
    ),
    "a completion that the user ends": (
        KTO,
        {"prompt": "q", "completion": chat(("assistant", "a"), ("user", "r"))["messages"], "label": 1},
        "completion must end with the assistant; it ends with 'user'",
    ),
    "a label that is a class": (
        MESSAGES,
        {**chat(("user", "q")), "label": 3},
        "label is 3; the label of a good or bad answer is true, false, 1 or 0. If it means something "
        "else, leave it to rewards with --set formatter.label_column=null",
    ),
    "a row of Alpaca among conversations": (
        MESSAGES,
        {"instruction": "q", "output": "a"},
        "no 'messages'; found instruction, output. The row looks like the format 'alpaca': --set formatter.name=alpaca",
    ),
    "a row of text among questions": (
        QUESTION_ANSWER,
        {"text": "a"},
        "no 'question'; found text. The row looks like the format 'text'",
    ),
    "a conversation among texts": (
        TEXT,
        chat(("user", "q")),
        "no 'text'; found messages. The row looks like the format 'messages'",
    ),
    "tools in a format of text": (
        QUESTION_ANSWER,
        {"question": "q", "answer": "a", "tools": [{}]},
        "the row has 'tools', and the formatter 'question_answer' reads text only; use "
        "'prompt_completion' or 'messages'",
    ),
    "a number for a question": (
        QUESTION_ANSWER,
        {"question": ["q"], "answer": "a"},
        "question must be text, this is a list",
    ),
    "a truth value for an answer": (
        QUESTION_ANSWER,
        {"question": "q", "answer": True},
        "answer must be text, this is a boolean",
    ),
}


@pytest.mark.parametrize(("formatter", "values", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(error_of: Any, formatter: Formatter, values: dict, message: str):
    assert error_of(formatter, values).startswith(message)


@pytest.mark.parametrize("path", ["rows.csv", "rows.TSV", "rows.csv.gz"])
def test_the_word_nan_in_a_table_of_text_is_no_text(path: str):
    for values in ({"instruction": "q", "output": "nan"}, {"instruction": "q", "output": "a", "system": "NaN"}):
        with pytest.raises(
            DataError, match=rf"^{path}:1: '\w+' is '(nan|NaN)', which is how a missing value gets into"
        ):
            ALPACA.to_record(row(values, path=path))
    assert ALPACA.to_record(row({"instruction": "q", "output": "nan"})).messages[-1].text == "nan"
