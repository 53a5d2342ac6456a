"""Whatever a formatter writes says all that the record held; what it cannot say it refuses."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    tokens,
)
from llmkit.errors import DataError
from llmkit.types import Message, Part, Record, Row, Sample, Source, ToolCall

SOURCE = Source("train.jsonl", 17)
MODULES = (
    alpaca,
    kto,
    messages,
    openai_preference,
    preference,
    prompt_completion,
    question_answer,
    sharegpt,
    text,
    tokens,
)
FORMATTERS: dict[str, Formatter] = {
    module.__name__.rpartition(".")[2]: module.build(module.Config())  # type: ignore[attr-defined]
    for module in MODULES
}

TEXT = st.text(max_size=6) | st.sampled_from(["<image>", "nan", '[{"role": "user"}]', "####"])
WEIGHT = st.sampled_from([None, None, None, 0.0, 0.5])
NAME = st.sampled_from([None, None, "ann"])
MEDIA = st.builds(Part, st.sampled_from(["image", "audio", "video"]), url=st.sampled_from([None, "/a", "http://b/c"]))
WEIGHTED = st.builds(Part, text=TEXT, weight=st.sampled_from([0.0, 1.0]))
# In canonical form, plain text stands between other parts: texts that follow each other are one.
PLAIN = TEXT.filter(bool).map(lambda words: Part(text=words))
CONTENT = st.one_of(
    TEXT,
    TEXT,
    TEXT,
    st.tuples(MEDIA, PLAIN),
    st.tuples(PLAIN, MEDIA, PLAIN),
    st.tuples(WEIGHTED, PLAIN),
)
CALLS = st.lists(
    st.builds(
        ToolCall,
        st.sampled_from(["add", "now"]),
        st.sampled_from(["{}", '{"a": 1}', '{"b": [null, "é"]}']),
        st.sampled_from([None, "c1"]),
    ),
    max_size=2,
).map(tuple)
ASSISTANT = st.builds(
    Message,
    st.just("assistant"),
    CONTENT,
    WEIGHT,
    tool_calls=st.one_of(st.just(()), CALLS),
    name=NAME,
    reasoning=st.sampled_from([None, None, "hm"]),
)
ANSWER = st.builds(Message, st.just("assistant"), TEXT)
USER = st.builds(Message, st.just("user"), CONTENT, WEIGHT, name=NAME)
PLAIN_USER = st.builds(Message, st.just("user"), TEXT)
SYSTEM = st.builds(Message, st.just("system"), TEXT, WEIGHT)
TOOL = st.builds(Message, st.just("tool"), TEXT, tool_call_id=st.sampled_from([None, "c1"]), name=NAME)
ANY = st.lists(st.one_of(SYSTEM, USER, ASSISTANT, TOOL), min_size=1, max_size=4).map(tuple)
ALTERNATING = st.one_of(
    st.tuples(PLAIN_USER),
    st.tuples(PLAIN_USER, ANSWER),
    st.tuples(SYSTEM, PLAIN_USER, ANSWER, PLAIN_USER, ANSWER),
    st.tuples(USER, ANSWER),
)
COMMON: dict[str, Any] = {
    "source": st.just(SOURCE),
    "answer": st.one_of(st.none(), TEXT),
    "extra": st.dictionaries(st.sampled_from(["id", "score", "input", "label"]), st.integers(5, 9), max_size=1),
    "tools": st.sampled_from([None, None, '[{"type": "function", "function": {"name": "add"}}]']),
}
CONVERSATIONS = st.builds(Record, ANY | ALTERNATING, label=st.sampled_from([None, None, True, False]), **COMMON)
PAIRS = st.builds(
    Record,
    ALTERNATING | ANY,
    chosen=st.lists(ASSISTANT, min_size=1, max_size=2).map(lambda side: (Message("assistant", "yes"), *side))
    | st.just((Message("assistant", "yes"),)),
    rejected=st.just((Message("assistant", "no"),)),
    **COMMON,
)
OTHERS = st.builds(Record, st.just(()), text=TEXT, source=st.just(SOURCE)) | st.builds(
    Record,
    st.just(()),
    source=st.just(SOURCE),
    tokens=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=4).map(
        lambda pairs: Sample([pair[0] for pair in pairs], [pair[1] for pair in pairs], SOURCE)
    ),
)


@pytest.mark.parametrize("name", FORMATTERS)
@settings(deadline=None, max_examples=120)
@given(record=CONVERSATIONS | PAIRS | OTHERS)
def test_written_and_read_again_it_is_the_same_or_it_is_refused(name: str, record: Record):
    formatter = FORMATTERS[name]
    try:
        written = formatter.from_record(record)
    except DataError as error:
        assert str(error).startswith("train.jsonl:17: ")  # noqa: PT017 - writing may also succeed
        return
    again = formatter.to_record(Row(written, SOURCE))
    if name == "question_answer" and record.answer is None:
        # Its reference answer is part of the worked one.
        again = replace(again, answer=None)
    assert again == record


@settings(deadline=None, max_examples=120)
@given(record=CONVERSATIONS.filter(lambda record: not {"input", "label"} & record.extra.keys()))
def test_messages_hold_every_conversation(record: Record):
    assert FORMATTERS["messages"].to_record(Row(FORMATTERS["messages"].from_record(record), SOURCE)) == record


def test_a_refusal_names_all_that_would_be_lost():
    thoughtful = Message("assistant", "a", 0.5, tool_calls=(ToolCall("f", "{}", "c1"),), reasoning="hm")
    record = Record((Message("user", "q", name="ann"), thoughtful), SOURCE, label=True, tools="[]", answer="a")
    expected = {
        "alpaca": "loss weights, tool calls, ids of tool calls, reasoning, names of speakers",
        "sharegpt": "reasoning",
        "prompt_completion": "a label",
        "openai_preference": "a label, a reference answer",
        "text": "tool schemas, a label, a reference answer, loss weights, tool calls, ids of tool calls, reasoning, "
        "names of speakers",
    }
    for name, unheld in expected.items():
        with pytest.raises(DataError) as caught:
            FORMATTERS[name].from_record(record)
        assert str(caught.value) == f"train.jsonl:17: '{name}' cannot hold {unheld}; write it as 'messages'"


def test_an_extra_column_never_takes_the_place_of_one_that_has_a_meaning():
    record = Record((Message("user", "q"), Message("assistant", "a")), SOURCE, extra={"input": "1 2"})
    with pytest.raises(DataError, match=r"'alpaca' gives the column 'input' a meaning of its own.*rename that column"):
        FORMATTERS["alpaca"].from_record(record)
    assert FORMATTERS["messages"].from_record(record)["input"] == "1 2"
