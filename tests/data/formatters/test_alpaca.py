"""Instructions, inputs and outputs."""

from typing import Any

import pytest

from llmkit.data.formatters import alpaca
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record, ToolCall

ALPACA = alpaca.build(alpaca.Config())


def read(**values: Any) -> Record:
    return ALPACA.to_record(row(values))


def test_instruction_and_input_are_two_lines():
    assert read(instruction="Add.", input="1 2", output="3").messages == (
        Message("user", "Add.\n1 2"),
        Message("assistant", "3"),
    )
    for nothing in ("", None, float("nan")):
        assert read(instruction="Add.", input=nothing, output="3").messages[0] == Message("user", "Add.")
    assert read(instruction="", input="1 2", output="3").messages[0] == Message("user", "1 2")


@pytest.mark.parametrize("history", [[["a", "b"], ["c", "d"]], '[["a", "b"], ["c", "d"]]', "[['a', 'b'], ['c', 'd']]"])
def test_system_and_history_come_before(history: Any):
    record = read(instruction="e", output="f", system="s", history=history)
    assert [message.text for message in record.messages] == ["s", "a", "b", "c", "d", "e", "f"]
    # Answers of the history are trained like the output: no weight masks them.
    assert {message.weight for message in record.messages} == {None}
    assert ALPACA.from_record(record)["history"] == [["a", "b"], ["c", "d"]]


def test_a_row_without_output_is_a_prompt():
    record = read(instruction="1+1?", answer=2, difficulty=3)
    assert record.messages == (Message("user", "1+1?"),)
    assert (record.answer, record.extra) == ("2", {"difficulty": 3})
    assert read(instruction="1+1?", output="").messages[-1] == Message("assistant", "")


def test_a_pair_and_a_label():
    record = read(instruction="q", input="", chosen="yes", rejected="no", output="")
    assert (record.chosen, record.rejected) == ((Message("assistant", "yes"),), (Message("assistant", "no"),))
    assert record.messages == (Message("user", "q"),)
    assert read(instruction="q", output="a", label=True).label is True


def test_columns_of_ones_own():
    config = alpaca.Config(
        instruction_column="question", input_column=None, output_column="response", system_column="system_prompt"
    )
    record = alpaca.build(config).to_record(
        row({"question": "q", "input": "kept", "response": "a", "system_prompt": "s", "system": "kept too"})
    )
    assert [message.text for message in record.messages] == ["s", "q", "a"]
    assert record.extra == {"input": "kept", "system": "kept too"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "a"}, "no 'instruction'; found output. Name the column with --set formatter.instruction_column="),
        ({"instruction": None, "output": "a"}, "'instruction' is null"),
        ({"instruction": float("nan"), "output": "a"}, "'instruction' is NaN, a table's missing value"),
        ({"instruction": "q", "output": ["a", "b"]}, "output must be text, this is a list"),
        ({"instruction": "q", "input": {}, "output": "a"}, "input must be text, this is an object"),
        (
            {"instruction": "q", "output": "a", "history": "no"},
            "history must be a list of [question, answer], this is text",
        ),
        (
            {"instruction": "q", "output": "a", "history": {}},
            "history must be a list of [question, answer], this is an object",
        ),
        (
            {"instruction": "q", "output": "a", "history": [["b"]]},
            "history[0] must be [question, answer], this is a list",
        ),
        ({"instruction": "q", "output": "a", "history": [["b", None]]}, "history[0] must be text, this is null"),
        ({"instruction": "q", "chosen": "a"}, "no 'rejected'; found instruction, chosen."),
        (
            {"instruction": "q", "output": "o", "chosen": "a", "rejected": "b"},
            "the row has 'output' beside 'chosen' and",
        ),
        ({"instruction": "q", "chosen": "a", "rejected": "a"}, "the chosen and the rejected answer are the same"),
        (
            {"instruction": "q", "output": "a", "label": 2},
            "label is 2; the label of a good or bad answer is true, false",
        ),
    ],
)
def test_bad_rows_are_named(error_of: Any, values: dict, message: str):
    assert error_of(ALPACA, values).startswith(message)


@pytest.mark.parametrize(
    "messages",
    [
        (Message("user", "a"), Message("user", "b")),
        (Message("assistant", "a"),),
        (Message("user", "a"), Message("system", "s"), Message("assistant", "b")),
        (Message("user", "a"), Message("assistant", "b", 0.5)),
        (Message("user", "a"), Message("assistant", "", tool_calls=(ToolCall("f", "{}"),))),
        (Message("user", "a", name="ann"), Message("assistant", "b")),
    ],
)
def test_what_alpaca_cannot_hold(messages: tuple[Message, ...]):
    with pytest.raises(DataError, match=r"^train\.jsonl:17: 'alpaca' cannot hold .*; write it as 'messages'"):
        ALPACA.from_record(Record(messages, row({}, 17, "train.jsonl").source))
