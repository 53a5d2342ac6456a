"""Questions and worked answers."""

import pytest

from llmkit.data.formatters import question_answer
from llmkit.data.turns import prompt_messages
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record

SOURCE = row({}, 17, "train.jsonl").source
CONVERSATION = (Message("user", "q"), Message("assistant", "a"))
QUESTION_ANSWER = question_answer.build(question_answer.Config())


def test_the_reference_answer_is_what_follows_the_marker():
    record = QUESTION_ANSWER.to_record(row({"question": "How many?", "answer": "6*7=42\n#### 42", "id": 1}))
    assert record.messages == (Message("user", "How many?"), Message("assistant", "6*7=42\n#### 42"))
    assert record.answer == "42"
    assert record.extra == {"id": 1}
    assert QUESTION_ANSWER.to_record(row({"question": "How many?", "answer": 42})).answer == "42"


def test_prompt_suffix_and_other_columns():
    config = question_answer.Config(
        question_column="problem", answer_column="solution", system_prompt="Think.", suffix="\nEnd with ####."
    )
    formatter = question_answer.build(config)
    values = {"problem": "p", "solution": "s", "answer": "kept"}
    record = formatter.to_record(row(values))
    assert record.messages[:2] == (Message("system", "Think."), Message("user", "p\nEnd with ####."))
    assert prompt_messages(record) == record.messages[:2]
    assert formatter.from_record(record) == values
    with pytest.raises(DataError, match="cannot hold a question without its option 'suffix'"):
        formatter.from_record(Record((Message("system", "Think."), *CONVERSATION), SOURCE))


@pytest.mark.parametrize(
    "record",
    [
        Record((Message("user", "a"), Message("user", "b"), Message("assistant", "c")), SOURCE),
        Record((Message("user", "a"), Message("assistant", "c", 0.5)), SOURCE),
        Record((Message("user", "a"), Message("assistant", "c")), SOURCE, answer="d"),
        Record((Message("system", "s"), Message("user", "a"), Message("assistant", "c")), SOURCE),
        Record((), SOURCE),
    ],
)
def test_it_holds_one_plain_question(record: Record):
    with pytest.raises(DataError, match=r"^train\.jsonl:17: .*write it as 'messages'"):
        QUESTION_ANSWER.from_record(record)
