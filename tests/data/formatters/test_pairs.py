"""Preference pairs and labelled answers."""

from typing import Any

import pytest

from llmkit.data.formatters import kto, openai_preference, preference, prompt_completion
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record

SOURCE = row({}).source
PREFERENCE = preference.build(preference.Config())
OPENAI = openai_preference.build(openai_preference.Config())
KTO = kto.build(kto.Config())
PROMPT_COMPLETION = prompt_completion.build(prompt_completion.Config())
EXPECTED_PAIR = Record(
    (Message("user", "q"),), SOURCE, chosen=(Message("assistant", "yes"),), rejected=(Message("assistant", "no"),)
)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


YES, NO = turn("assistant", "yes"), turn("assistant", "no")


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"question": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": [turn("user", "q")], "chosen": [YES], "rejected": [NO]},
        {"prompt": "q", "chosen": [turn("user", "q"), YES], "rejected": [NO]},
        {"chosen": [turn("user", "q"), YES], "rejected": [turn("user", "q"), NO]},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"instruction": "q", "input": "", "chosen": "yes", "rejected": "no"},
    ],
)
def test_preference_in_every_form(values: dict):
    assert PREFERENCE.to_record(row(values)) == EXPECTED_PAIR


def test_preference_with_instruction_input_system_and_tools():
    values = {"instruction": "Add.", "input": "1 2", "system": "Brief.", "chosen": "3", "rejected": "4", "id": 7}
    record = PREFERENCE.to_record(row({**values, "tools": [{"name": "add"}]}))
    assert record.messages == (Message("system", "Brief."), Message("user", "Add.\n1 2"))
    assert record.extra == {"id": 7}
    assert record.tools == '[{"type": "function", "function": {"name": "add"}}]'


def test_a_table_of_text_holds_messages_in_cells():
    values = {"prompt": "[{'role': 'user', 'content': 'q'}]", "chosen": '[{"role": "assistant", "content": "yes"}]'}
    record = PREFERENCE.to_record(row({**values, "rejected": "no"}, path="pairs.csv"))
    assert record.messages == EXPECTED_PAIR.messages
    assert record.chosen == EXPECTED_PAIR.chosen
    # In a file that can hold lists, text means text.
    as_text = PREFERENCE.to_record(row({**values, "rejected": "no"}, path="pairs.jsonl"))
    assert as_text.messages == (Message("user", values["prompt"]),)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "the chosen and the rejected answer are the same"),
        (
            {"prompt": "q", "chosen": [turn("user", "q"), YES], "rejected": [YES]},
            "the chosen and the rejected answer are the same",
        ),
        ({"prompt": "q", "chosen": "a"}, "no 'rejected'; found prompt, chosen."),
        ({"chosen": "a", "rejected": "b"}, "no prompt: found chosen, rejected"),
        (
            {"prompt": "q", "question": "r", "chosen": "a", "rejected": "b"},
            "prompt and question could each be the prompt",
        ),
        ({"prompt": "q", "chosen": 3, "rejected": "b"}, "chosen must be text or messages, this is a number"),
        (
            {"prompt": "q", "chosen": [turn("user", "r")], "rejected": "b"},
            "chosen must begin with the assistant's answer",
        ),
        ({"chosen": [turn("user", "q")], "rejected": [turn("user", "q"), NO]}, "chosen has no answer of its own"),
        (
            {"prompt": [turn("system", "s"), turn("user", "q")], "system": "t", "chosen": "a", "rejected": "b"},
            "'system' and the prompt both hold a system message",
        ),
    ],
)
def test_bad_pairs_are_named(error_of: Any, values: dict, message: str):
    assert error_of(PREFERENCE, values).startswith(message)


def test_openais_form_of_a_pair():
    tool = {"type": "function", "function": {"name": "add"}}
    values = {
        "input": {"messages": [turn("user", "q")], "tools": [tool], "parallel_tool_calls": True},
        "preferred_output": [YES],
        "non_preferred_output": [NO],
        "id": 1,
    }
    record = OPENAI.to_record(row(values))
    assert (record.messages, record.chosen, record.rejected) == (
        EXPECTED_PAIR.messages,
        EXPECTED_PAIR.chosen,
        EXPECTED_PAIR.rejected,
    )
    assert record.tools == '[{"type": "function", "function": {"name": "add"}}]'
    assert record.extra == {"id": 1, "parallel_tool_calls": True}
    assert OPENAI.from_record(record) == values


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"input": [turn("user", "q")]}, "input must be an object with 'messages', this is a list"),
        ({"input": {"prompt": "q"}}, "input has 'prompt'; known keys: messages, tools, parallel_tool_calls."),
        ({"input": {"tools": []}}, "input.messages must be a list of messages, this is null"),
        ({"input": {"messages": [turn("user", 1)]}}, "input.messages[0].content is a number; it must be text"),
        ({"preferred_output": [turn("user", "q")]}, "preferred_output[0] must be the assistant's; its role is 'user'"),
        ({"non_preferred_output": None}, "'non_preferred_output' is null"),
    ],
)
def test_bad_openai_pairs_are_named(error_of: Any, values: dict, message: str):
    good = {"input": {"messages": [turn("user", "q")]}, "preferred_output": [YES], "non_preferred_output": [NO]}
    assert error_of(OPENAI, {**good, **values}).startswith(message)


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (True, True),
        (False, False),
        (1, True),
        (0, False),
        (1.0, True),
        ("true", True),
        ("False", False),
        ("1", True),
        ("0", False),
    ],
)
def test_a_label_in_every_spelling(given: Any, label: bool):
    record = KTO.to_record(row({"prompt": "q", "completion": "a", "label": given, "id": 1}))
    assert record == Record((Message("user", "q"), Message("assistant", "a")), SOURCE, label=label, extra={"id": 1})


@pytest.mark.parametrize("label", [2, -1, "yes", "good", [True], 0.5])
def test_anything_else_is_no_label(error_of: Any, label: Any):
    message = error_of(KTO, {"prompt": "q", "completion": "a", "label": label})
    assert message.startswith("label is ")
    assert "is true, false, 1 or 0" in message


def test_a_prompt_with_its_completion():
    record = PROMPT_COMPLETION.to_record(row({"prompt": "q", "completion": "a", "answer": "42", "id": 1}))
    assert record.messages == (Message("user", "q"), Message("assistant", "a"))
    assert (record.answer, record.extra) == ("42", {"id": 1})
    listed = PROMPT_COMPLETION.to_record(
        row({"prompt": [turn("system", "s"), turn("user", "q")], "completion": [turn("assistant", "a")]})
    )
    assert [message.role for message in listed.messages] == ["system", "user", "assistant"]


def test_a_prompt_alone_takes_every_other_column_to_the_reward():
    values = {"prompt": "1+1?", "solution": "2", "tests": ["assert f() == 2"], "difficulty": {"level": 1}}
    record = PROMPT_COMPLETION.to_record(row(values))
    assert record.messages == (Message("user", "1+1?"),)
    assert record.extra == {column: value for column, value in values.items() if column != "prompt"}


def test_bad_prompts_are_named(error_of: Any):
    assert error_of(PROMPT_COMPLETION, {"completion": "a"}).startswith("no 'prompt'; found completion.")
    assert error_of(PROMPT_COMPLETION, {"prompt": 3.5, "completion": {}}).startswith("completion has the role None")
    assert error_of(PROMPT_COMPLETION, {"prompt": True}).startswith(
        "prompt must be text or messages, this is a boolean"
    )


def test_formats_of_one_answer_refuse_pairs():
    for formatter, name in ((PROMPT_COMPLETION, "prompt_completion"), (KTO, "kto")):
        with pytest.raises(
            DataError, match=rf"^rows\.jsonl:1: '{name}' cannot hold a preference pair; write it as 'pref"
        ):
            formatter.from_record(EXPECTED_PAIR)
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: 'preference' holds a prompt and two answers"):
        PREFERENCE.from_record(Record((Message("user", "q"),), SOURCE))
    with pytest.raises(DataError, match=r"^rows\.jsonl:1: 'kto' cannot hold a record without label"):
        KTO.from_record(Record((Message("user", "q"), Message("assistant", "a")), SOURCE))
