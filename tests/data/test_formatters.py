"""What each formatter reads, writes and refuses."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.contract import Dataset, Formatter, choose_formatter, records
from llmkit.data.files.reading import open_path
from llmkit.data.formatters import auto, messages, preference, prompt_completion, question_answer
from llmkit.data.turns import prompt_messages
from llmkit.errors import DataError
from llmkit.types import Message, Record, Row, Source

SOURCE = Source("train.jsonl", 17)
FORMATS = Path(__file__).parents[3] / "shared" / "data" / "formats"
needs_formats = pytest.mark.skipif(not FORMATS.is_dir(), reason="the example files are not here")

TEXT = st.text(max_size=10)
MESSAGE = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    TEXT,
    st.one_of(st.none(), st.sampled_from([0.0, 0.5, 1.0])),
)
ANSWER = st.builds(Message, st.just("assistant"), TEXT, st.one_of(st.none(), st.just(0.5)))
EXTRA = st.dictionaries(st.sampled_from(["id", "score"]), st.integers(), max_size=2)
CONVERSATIONS = st.builds(
    Record,
    st.lists(MESSAGE, min_size=1, max_size=4).map(tuple),
    st.just(SOURCE),
    answer=st.one_of(st.none(), TEXT),
    extra=EXTRA,
)
PAIRS = st.builds(
    Record,
    st.lists(MESSAGE, max_size=3).map(lambda before: (*before, Message("user", "q"))),
    st.just(SOURCE),
    chosen=st.lists(ANSWER, min_size=1, max_size=2).map(lambda side: (Message("assistant", "yes"), *side)),
    rejected=st.lists(ANSWER, min_size=1, max_size=2).map(lambda side: (Message("assistant", "no"), *side)),
    extra=EXTRA,
)


def row(**values: Any) -> Row:
    return Row(values, SOURCE)


def turn(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def error_of(formatter: Formatter, values: Mapping[str, Any]) -> str:
    with pytest.raises(DataError) as caught:
        formatter.to_record(Row(values, SOURCE))
    message = str(caught.value)
    assert message.startswith("train.jsonl:17: ")
    return message.removeprefix("train.jsonl:17: ")


MESSAGES = messages.build(messages.Config())
QUESTION_ANSWER = question_answer.build(question_answer.Config())
PROMPT_COMPLETION = prompt_completion.build(prompt_completion.Config())
PREFERENCE = preference.build(preference.Config())


def test_messages():
    record = MESSAGES.to_record(
        row(messages=[turn("developer", "s"), turn("user", "q"), turn("assistant", "a")], answer=72, id=5)
    )
    assert record.messages == (Message("system", "s"), Message("user", "q"), Message("assistant", "a"))
    assert record.answer == "72"
    assert record.extra == {"id": 5}
    assert record.source == SOURCE


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
    (message,) = MESSAGES.to_record(row(messages=[turn("assistant", "a", **spelling)])).messages
    assert message.weight == weight


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("", ""),
        ([{"type": "text", "text": "one "}, {"type": "text", "text": "two"}], "one two"),
        (["a", "b"], "ab"),
        ([], ""),
    ],
)
def test_text_parts_are_joined(content: Any, text: str):
    assert MESSAGES.to_record(row(messages=[turn("user", content)])).messages[0].content == text


def test_messages_may_be_json_in_a_cell():
    cell = json.dumps([turn("user", "q")])
    assert MESSAGES.to_record(row(messages=cell)).messages == (Message("user", "q"),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([], "messages is an empty list"),
        ("hello", "messages must be a list of messages, this is text"),
        ({"role": "user"}, "messages must be a list of messages, this is an object"),
        (["hello"], "messages[0] must be an object with 'role' and 'content', this is text"),
        ([turn("user", "q"), turn("oracle", "a")], "messages[1] has the role 'oracle'; known roles: system, user"),
        ([{"content": "q"}], "messages[0] has the role None"),
        ([turn("user", None)], "messages[0] has no content"),
        ([turn("user", 3)], "messages[0] has content that is a number"),
        (
            [turn("user", [{"type": "image_url"}])],
            "messages[0].content[0] is 'image_url', and this version trains on text",
        ),
        (
            [turn("assistant", None, tool_calls=[{"id": "x"}])],
            "messages[0] has 'tool_calls', and this version trains on text",
        ),
        ([turn("assistant", "a", reasoning_content="hm")], "messages[0] has 'reasoning_content', and this version"),
        ([turn("user", "q", weight=-1)], "messages[0].weight is -1; a weight is true, false or a number from 0"),
        ([turn("user", "q", weight=float("nan"))], "messages[0].weight is nan;"),
        ([turn("user", "q", loss="much")], "messages[0].loss is 'much';"),
        ([turn("user", "q", train=True, weight=0)], "messages[0] has weights that disagree: weight=0, train=True"),
    ],
)
def test_bad_messages_are_named(value: Any, message: str):
    assert error_of(MESSAGES, {"messages": value}).startswith(message)


def test_rows_with_tools_or_media_are_refused():
    conversation = [turn("user", "q")]
    assert error_of(MESSAGES, {"messages": conversation, "tools": [{}]}).startswith("the row has 'tools'")
    assert error_of(MESSAGES, {"messages": conversation, "images": ["a.jpg"]}).startswith("the row has 'images'")
    assert MESSAGES.to_record(row(messages=conversation, tools=None, images=[])).messages


def test_a_missing_column_says_what_is_there():
    message = error_of(MESSAGES, {"mesages": [], "id": 1})
    assert message.startswith("no 'messages'; found mesages, id. Did you mean 'mesages'? Name the column with")
    assert "--set formatter.messages_column=" in message
    assert error_of(MESSAGES, {"messages": None}) == "'messages' is null"


def test_question_answer():
    record = QUESTION_ANSWER.to_record(row(question="How many?", answer="6*7=42\n#### 42", id=1))
    assert record.messages == (Message("user", "How many?"), Message("assistant", "6*7=42\n#### 42"))
    assert record.answer == "42"
    assert record.extra == {"id": 1}
    assert QUESTION_ANSWER.to_record(row(question="How many?", answer=42)).answer == "42"


def test_question_answer_with_prompt_suffix_and_other_columns():
    config = question_answer.Config(
        question_column="problem", answer_column="solution", system_prompt="Think.", suffix="\nEnd with ####."
    )
    formatter = question_answer.build(config)
    values = {"problem": "p", "solution": "s", "answer": "kept"}
    record = formatter.to_record(Row(values, SOURCE))
    assert record.messages[:2] == (Message("system", "Think."), Message("user", "p\nEnd with ####."))
    assert prompt_messages(record) == record.messages[:2]
    assert formatter.from_record(record) == values


def test_question_answer_holds_one_plain_question():
    two_turns = Record((Message("user", "a"), Message("user", "b"), Message("assistant", "c")), SOURCE)
    weighted = Record((Message("user", "a"), Message("assistant", "c", 0.5)), SOURCE)
    other_answer = Record((Message("user", "a"), Message("assistant", "c")), SOURCE, answer="d")
    unasked_system = Record((Message("system", "s"), Message("user", "a"), Message("assistant", "c")), SOURCE)
    for record in (two_turns, weighted, other_answer, unasked_system):
        with pytest.raises(DataError, match=r"^train\.jsonl:17: .*write it as 'messages'"):
            QUESTION_ANSWER.from_record(record)


def test_prompt_completion():
    record = PROMPT_COMPLETION.to_record(row(prompt="q", completion="a", answer="42", id=1))
    assert record.messages == (Message("user", "q"), Message("assistant", "a"))
    assert (record.answer, record.extra) == ("42", {"id": 1})
    listed = PROMPT_COMPLETION.to_record(
        row(prompt=[turn("system", "s"), turn("user", "q")], completion=[turn("assistant", "a")])
    )
    assert [message.role for message in listed.messages] == ["system", "user", "assistant"]
    assert PROMPT_COMPLETION.to_record(row(prompt="q", answer="42")).messages == (Message("user", "q"),)
    assert error_of(PROMPT_COMPLETION, {"completion": "a"}).startswith("no 'prompt'; found completion.")
    assert error_of(PROMPT_COMPLETION, {"prompt": 3.5, "completion": {}}).startswith(
        "completion must be text, this is an object"
    )


EXPECTED_PAIR = Record(
    (Message("user", "q"),), SOURCE, chosen=(Message("assistant", "yes"),), rejected=(Message("assistant", "no"),)
)


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "q", "chosen": "yes", "rejected": "no"},
        {"question": "q", "chosen": "yes", "rejected": "no"},
        {"prompt": [turn("user", "q")], "chosen": [turn("assistant", "yes")], "rejected": [turn("assistant", "no")]},
        {"prompt": "q", "chosen": [turn("user", "q"), turn("assistant", "yes")], "rejected": [turn("assistant", "no")]},
        {
            "chosen": [turn("user", "q"), turn("assistant", "yes")],
            "rejected": [turn("user", "q"), turn("assistant", "no")],
        },
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {"instruction": "q", "input": "", "chosen": "yes", "rejected": "no"},
    ],
)
def test_preference_in_every_form(values: dict):
    assert PREFERENCE.to_record(Row(values, SOURCE)) == EXPECTED_PAIR


def test_preference_with_instruction_input_and_system():
    record = PREFERENCE.to_record(row(instruction="Add.", input="1 2", system="Brief.", chosen="3", rejected="4", id=7))
    assert record.messages == (Message("system", "Brief."), Message("user", "Add.\n1 2"))
    assert record.extra == {"id": 7}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompt": "q", "chosen": "a", "rejected": "a"}, "'chosen' and 'rejected' are the same"),
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
        (
            {"chosen": [turn("user", "q")], "rejected": [turn("user", "q"), turn("assistant", "no")]},
            "chosen has no answer of its own",
        ),
    ],
)
def test_bad_pairs_are_named(values: dict, message: str):
    assert error_of(PREFERENCE, values).startswith(message)


@settings(deadline=None, max_examples=200)
@given(record=CONVERSATIONS)
def test_messages_round_trip(record: Record):
    assert MESSAGES.to_record(Row(MESSAGES.from_record(record), SOURCE)) == record


@settings(deadline=None, max_examples=200)
@given(record=CONVERSATIONS.filter(lambda record: any(message.role != "assistant" for message in record.messages)))
def test_prompt_completion_round_trip(record: Record):
    assert PROMPT_COMPLETION.to_record(Row(PROMPT_COMPLETION.from_record(record), SOURCE)) == record


@settings(deadline=None, max_examples=200)
@given(record=PAIRS)
def test_preference_round_trip(record: Record):
    assert PREFERENCE.to_record(Row(PREFERENCE.from_record(record), SOURCE)) == record


@settings(deadline=None, max_examples=200)
@given(question=TEXT, answer=TEXT, extra=EXTRA)
def test_question_answer_round_trip(question: str, answer: str, extra: dict):
    values = {"question": question, "answer": answer, **extra}
    assert QUESTION_ANSWER.from_record(QUESTION_ANSWER.to_record(Row(values, SOURCE))) == values


def test_a_format_refuses_what_it_cannot_hold():
    for formatter in (MESSAGES, PROMPT_COMPLETION, QUESTION_ANSWER):
        with pytest.raises(DataError, match=r"^train\.jsonl:17: "):
            formatter.from_record(EXPECTED_PAIR)
    with pytest.raises(DataError, match=r"^train\.jsonl:17: 'preference' holds a prompt and two answers"):
        PREFERENCE.from_record(Record((Message("user", "q"),), SOURCE))


@pytest.mark.parametrize(
    ("values", "formatter"),
    [
        ({"messages": [turn("user", "q")]}, messages.Messages),
        ({"messages": json.dumps([turn("user", "q")])}, messages.Messages),
        ({"question": "q", "answer": "a"}, question_answer.QuestionAnswer),
        ({"prompt": "q", "completion": "a"}, prompt_completion.PromptCompletion),
        ({"prompt": "q", "answer": "a"}, prompt_completion.PromptCompletion),
        ({"prompt": "q", "chosen": "a", "rejected": "b"}, preference.Preference),
        ({"messages": [turn("user", "q")], "chosen": "a", "rejected": "b"}, preference.Preference),
    ],
)
def test_auto_finds_the_formatter(values: dict, formatter: type):
    assert isinstance(auto.build(auto.Config()).choose([Row(values, SOURCE)] * 3), formatter)


def test_auto_reads_and_writes_with_what_it_chose():
    formatter = auto.build(auto.Config())
    with pytest.raises(DataError, match=r"no format was chosen to write in"):
        formatter.from_record(EXPECTED_PAIR)
    record = formatter.to_record(row(question="q", answer="a"))
    assert record == QUESTION_ANSWER.to_record(row(question="q", answer="a"))
    assert formatter.from_record(record) == {"question": "q", "answer": "a"}
    assert formatter.score([row(question="q", answer="a")]) == 1.0
    assert formatter.score([row(colour="red")]) == 0.0


def test_auto_stays_with_the_majority_when_a_row_is_bad():
    good, bad = row(question="q", answer="a"), row(question="q")
    assert isinstance(auto.build(auto.Config()).choose([good, good, bad, good]), question_answer.QuestionAnswer)


def test_auto_names_the_candidates_when_it_cannot_tell():
    ambiguous = row(messages=[turn("user", "q")], question="q", answer="a")
    with pytest.raises(
        DataError, match=r"^train\.jsonl:17: .*'messages' or 'question_answer'.*--set formatter\.name=messages"
    ):
        auto.build(auto.Config()).choose([ambiguous])


def test_auto_says_when_nothing_fits():
    with pytest.raises(
        DataError, match=r"^train\.jsonl:17: no formatter fits these rows; found text\. Installed: messages,"
    ):
        auto.build(auto.Config()).choose([row(text="t")])
    with pytest.raises(DataError, match="No rows to find the format from"):
        auto.build(auto.Config()).choose([])


def load(name: str) -> Dataset:
    return open_path(str(FORMATS / name), None, None)


@needs_formats
def test_real_preference_rows_load():
    dataset = load("dpo_en_demo.json")
    loaded = list(records(dataset, auto.build(auto.Config())))
    assert len(loaded) == len(dataset) == 300
    assert all(record.messages and record.chosen and record.rejected for record in loaded)


@needs_formats
def test_real_conversations_load():
    dataset = load("kto_en_demo.json")
    formatter = choose_formatter(auto.build(auto.Config()), dataset)
    assert isinstance(formatter, messages.Messages)
    loaded = list(records(dataset, formatter))
    assert len(loaded) == len(dataset) == 300
    assert {record.extra["label"] for record in loaded} == {True, False}


@needs_formats
def test_real_instruction_rows_load_with_named_columns():
    formatter = prompt_completion.build(
        prompt_completion.Config(prompt_column="instruction", completion_column="output")
    )
    dataset = load("alpaca_en_demo.json")
    assert sum(len(record.messages) == 2 for record in records(dataset, formatter)) == len(dataset)


@needs_formats
def test_real_image_rows_are_refused():
    with pytest.raises(DataError, match=r"mllm_demo\.json:2: the row has 'images'"):
        next(records(load("mllm_demo.json"), MESSAGES))
