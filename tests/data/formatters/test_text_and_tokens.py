"""Rows without a conversation: plain text, and tokens."""

from typing import Any

import pytest

from llmkit.data.formatters import text, tokens
from llmkit.errors import DataError
from llmkit.testing.samples import row
from llmkit.types import Message, Record, Sample

SOURCE = row({}).source
TEXT = text.build(text.Config())
TOKENS = tokens.build(tokens.Config())


def test_text_is_kept_as_it_is():
    record = TEXT.to_record(row({"text": " Once.\n", "url": "u"}))
    assert record == Record((), SOURCE, text=" Once.\n", extra={"url": "u"})
    assert text.build(text.Config(text_column="content")).to_record(row({"content": "a"})).text == "a"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"content": "a"}, "no 'text'; found content."),
        ({"text": None}, "'text' is null"),
        ({"text": {"a": 1}}, "text must be text, this is an object"),
        ({"text": "a", "images": ["b.png"]}, "the row has 'images', and the formatter 'text' reads text only"),
    ],
)
def test_bad_text_is_named(error_of: Any, values: dict, message: str):
    assert error_of(TEXT, values).startswith(message)


@pytest.mark.parametrize(
    ("values", "weights"),
    [
        ({}, [1.0, 1.0, 1.0]),
        ({"labels": [-100, 6, 7]}, [0.0, 1.0, 1.0]),
        ({"labels": "[-100, -100, 7]"}, [0.0, 0.0, 1.0]),
        ({"loss_mask": [False, True, 1]}, [0.0, 1.0, 1.0]),
        ({"loss_weights": [0, 0.5, 2]}, [0.0, 0.5, 2.0]),
        ({"labels": None, "loss_mask": None}, [1.0, 1.0, 1.0]),
    ],
)
def test_what_is_trained_of_tokens(values: dict, weights: list[float]):
    record = TOKENS.to_record(row({"input_ids": [5, 6, 7], **values, "doc": "a"}))
    assert record == Record((), SOURCE, tokens=Sample([5, 6, 7], weights, SOURCE), extra={"doc": "a"})


@pytest.mark.parametrize(
    ("mask", "kept"),
    [([1, 1, 0, 0], [5, 6]), ([0, 1, 1, 1], [6, 7, 8]), ([0, 0, 1, 0], [7]), ([1, 1, 1, 1], [5, 6, 7, 8])],
)
def test_padding_is_taken_off(mask: list[int], kept: list[int]):
    record = TOKENS.to_record(row({"input_ids": [5, 6, 7, 8], "attention_mask": mask, "labels": [5, -100, 7, 8]}))
    assert record.tokens is not None
    assert record.tokens.token_ids == kept
    assert record.tokens.loss_weights == [{5: 1.0, 6: 0.0, 7: 1.0, 8: 1.0}[token_id] for token_id in kept]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text": "a", "n": 1}, "no 'input_ids'; found text, n. The row looks like the format 'text'"),
        ({"input_ids": []}, "'input_ids' is an empty list"),
        ({"input_ids": "5 6"}, "input_ids must be a list of numbers, this is text"),
        ({"input_ids": 5}, "input_ids must be a list of numbers, this is a number"),
        ({"input_ids": [5, "6"]}, "input_ids[1] must be a number, this is text"),
        ({"input_ids": [5, 6.5]}, "input_ids[1] is 6.5; a token id is a whole number from 0"),
        ({"input_ids": [5, -1]}, "input_ids[1] is -1;"),
        ({"input_ids": [5, 6], "labels": [5]}, "labels has 1 values, but there are 2 tokens"),
        (
            {"input_ids": [5, 6], "labels": [6, -100]},
            "labels[0] is 6, but the token there is 5; a label is its own token",
        ),
        ({"input_ids": [5, 6], "loss_mask": [1, 2]}, "loss_mask[1] is 2; it must be 0 or 1"),
        ({"input_ids": [5, 6], "loss_weights": [1, -0.5]}, "loss_weights[1] is -0.5; it must be a number from 0"),
        ({"input_ids": [5, 6], "loss_weights": [1, float("nan")]}, "loss_weights[1] is nan;"),
        ({"input_ids": [5, 6], "labels": [5, 6], "loss_mask": [1, 1]}, "labels and loss_mask each say what is trained"),
        ({"input_ids": [5, 6, 7], "attention_mask": [1, 0, 1]}, "attention_mask[1] is 0 between other tokens"),
        ({"input_ids": [5, 6], "attention_mask": [0, 0]}, "'attention_mask' says that every token is padding"),
    ],
)
def test_bad_tokens_are_named(error_of: Any, values: dict, message: str):
    assert error_of(TOKENS, values).startswith(message)


def test_each_holds_its_own_and_nothing_else():
    conversation = Record((Message("user", "q"),), SOURCE)
    words, ids = Record((), SOURCE, text="a"), Record((), SOURCE, tokens=Sample([5], [1.0], SOURCE))
    assert TEXT.from_record(words) == {"text": "a"}
    assert TOKENS.from_record(ids) == {"input_ids": [5]}
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'text' cannot hold token ids; write it as 'tokens'"):
        TEXT.from_record(ids)
    with pytest.raises(DataError, match=r"rows\.jsonl:1: 'tokens' cannot hold plain text; write it as 'text'"):
        TOKENS.from_record(words)
    for formatter in (TEXT, TOKENS):
        with pytest.raises(DataError, match="; write it as 'messages'"):
            formatter.from_record(conversation)
