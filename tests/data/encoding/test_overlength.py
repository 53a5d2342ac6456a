"""Rows that are too long, or of which nothing would be trained, by every policy."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.schema import DataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.counts import RowCounts
from llmkit.data.encoders import PairEncoder
from llmkit.data.overlength import fit_pair, fit_sample
from llmkit.errors import DataError
from llmkit.types import Message, PreferencePair, Record, Sample, Source

SOURCE = Source("train.jsonl", 17)


def sample(*weights: float) -> Sample:
    """Tokens 0, 1, 2, ... with these weights."""
    return Sample(list(range(len(weights))), list(weights), SOURCE)


def config(max_length: int, overlength: str = "error", untrained: str = "error") -> DataConfig:
    return DataConfig.model_validate({"max_length": max_length, "overlength": overlength, "untrained": untrained})


FIVE = sample(0, 0, 1, 1, 1)


def test_what_fits_is_kept_as_it_is():
    for overlength in ("error", "drop", "truncate_right", "truncate_left", "split"):
        assert fit_sample(FIVE, config(5, overlength)) == Encoded((FIVE,), "kept", 5, 3)


def test_too_long_is_an_error_that_names_the_options():
    message = r"^train\.jsonl:17: 5 tokens, more than data\.max_length=4\..*overlength=drop .*truncate_right"
    with pytest.raises(DataError, match=message):
        fit_sample(FIVE, config(4))


def test_a_row_can_be_dropped():
    assert fit_sample(FIVE, config(4, "drop")) == Encoded((), "dropped")


def test_truncating_on_the_right_keeps_the_first_tokens():
    assert fit_sample(FIVE, config(4, "truncate_right")) == Encoded((sample(0, 0, 1, 1),), "truncated", 4, 2)


def test_truncating_on_the_left_keeps_the_last_tokens_and_trains_none_without_context():
    cut = Sample([2, 3, 4], [0.0, 1.0, 1.0], SOURCE)
    assert fit_sample(FIVE, config(3, "truncate_left")) == Encoded((cut,), "truncated", 3, 2)


def test_splitting_makes_windows_and_leaves_out_those_that_train_nothing():
    # Windows [0 1] without loss, [2 3] whose first token loses its context, [4 5] whose second has no loss.
    row = sample(0, 0, 1, 1, 1, 0, 0.5)
    windows = (Sample([2, 3], [0.0, 1.0], SOURCE),)
    assert fit_sample(row, config(2, "split")) == Encoded(windows, "split", 2, 1)
    windows = (Sample([0, 1, 2], [0, 0, 1], SOURCE), Sample([3, 4, 5], [0.0, 1, 0], SOURCE))
    assert fit_sample(row, config(3, "split")) == Encoded(windows, "split", 6, 2)


@given(weights=st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=30), max_length=st.integers(2, 10))
def test_windows_are_consecutive_and_lose_no_other_trained_token(weights: list[float], max_length: int):
    result = fit_sample(sample(0.0, *weights, 1.0, 1.0), config(max_length, "split", "drop"))
    row = sample(0.0, *weights, 1.0, 1.0)
    trained = [index for index, weight in enumerate(row.loss_weights) if weight]
    if len(row.token_ids) > max_length:
        trained = [index for index in trained if index % max_length]
    found = [t for one in result.items for t, w in zip(one.token_ids, one.loss_weights, strict=True) if w]
    assert found == trained
    assert result.num_trained == len(trained)
    assert all(one.token_ids == sorted(one.token_ids) and len(one.token_ids) <= max_length for one in result.items)


@pytest.mark.parametrize(
    ("row", "options", "reason"),
    [
        (sample(0, 0), (5,), "every weight is 0"),
        (sample(0, 0, 0, 1), (3, "truncate_right"), r"none of its first data\.max_length=3 tokens"),
        (sample(0, 1, 0, 0), (3, "truncate_left"), r"none of its last data\.max_length=3 tokens"),
        (sample(0, 0, 1, 0), (2, "split"), r"begins a window of data\.max_length=2"),
    ],
)
def test_a_row_that_trains_nothing_is_an_error_or_left_out(row: Sample, options: tuple, reason: str):
    message = rf"^train\.jsonl:17: no token of this row would be trained: .*{reason}.*data\.untrained=drop"
    with pytest.raises(DataError, match=message):
        fit_sample(row, config(*options))
    length, overlength = (*options, "error")[:2]
    assert fit_sample(row, config(length, overlength, "drop")) == Encoded((), "untrained")


def pair(prompt: int, chosen: int, rejected: int) -> PreferencePair:
    """A prompt of tokens 0, 1, ..., and answers of tokens from 100 and from 200."""

    def side(first: int, count: int) -> Sample:
        tokens = [*range(prompt), *range(first, first + count)]
        return Sample(tokens, [0.0] * prompt + [1.0] * count, SOURCE)

    return PreferencePair(side(100, chosen), side(200, rejected))


def test_a_pair_that_fits_is_kept_and_both_sides_count():
    assert fit_pair(pair(3, 2, 1), config(5)) == Encoded((pair(3, 2, 1),), "kept", 9, 3)


def test_a_pair_is_too_long_or_dropped_when_either_side_is():
    for long in (pair(3, 2, 1), pair(3, 1, 2)):
        with pytest.raises(DataError, match=r"^train\.jsonl:17: 5 tokens, more than data\.max_length=4"):
            fit_pair(long, config(4))
        assert fit_pair(long, config(4, "drop")) == Encoded((), "dropped")


def test_a_pair_loses_its_answers_ends_on_the_right():
    assert fit_pair(pair(3, 4, 1), config(5, "truncate_right")) == Encoded((pair(3, 2, 1),), "truncated", 9, 3)


def test_a_pair_loses_the_same_prompt_tokens_on_both_sides_on_the_left():
    result = fit_pair(pair(3, 4, 1), config(5, "truncate_left"))
    chosen = Sample([2, 100, 101, 102, 103], [0, 1, 1, 1, 1], SOURCE)
    rejected = Sample([2, 200], [0, 1], SOURCE)
    assert result == Encoded((PreferencePair(chosen, rejected),), "truncated", 7, 5)


def test_a_pair_whose_prompt_is_too_short_to_cut_is_an_error():
    with pytest.raises(DataError, match=r"^train\.jsonl:17: 7 tokens, .*max_length=4.*prompt alone.*truncate_right"):
        fit_pair(pair(3, 4, 1), config(4, "truncate_left"))


def test_a_pair_cannot_be_split():
    with pytest.raises(DataError, match=r"^train\.jsonl:17: .*a pair cannot be divided; choose drop"):
        fit_pair(pair(3, 4, 1), config(4, "split"))


def test_a_pair_of_which_a_side_trains_nothing_is_an_error_or_left_out():
    for empty, options in ((pair(3, 2, 0), (9,)), (pair(5, 2, 2), (4, "truncate_right"))):
        with pytest.raises(DataError, match=r"^train\.jsonl:17: no token of this row would be trained"):
            fit_pair(empty, config(*options))
        length, overlength = (*options, "error")[:2]
        assert fit_pair(empty, config(length, overlength, "drop")) == Encoded((), "untrained")


def test_rows_are_counted_by_what_became_of_them(
    codec_of: Callable[[str], TextCodec], conversation: Callable[..., Record], fit: Callable[..., Encoded[Sample]]
):
    codec, counts = codec_of("chatml"), RowCounts()
    long_answer = conversation("user:q", "assistant:" + "long " * 50)
    question = conversation("user:q")
    for record, overlength in (
        (long_answer, "drop"), (long_answer, "truncate_right"), (long_answer, "split"), (question, "drop")
    ):  # fmt: skip
        counts.add(fit(codec, record, max_length=40, overlength=overlength, untrained="drop"))
    assert (counts.rows, counts.dropped, counts.truncated, counts.split, counts.untrained) == (4, 1, 1, 1, 1)
    # The answer begins in the first window and goes on to the last: none is left out, and each later one loses a token.
    (whole,) = fit(codec, long_answer).items
    length, trained = len(whole.token_ids), len(whole.token_ids) - whole.loss_weights.count(0.0)
    in_the_first = sum(weight > 0 for weight in whole.loss_weights[:40])
    assert counts.tokens == 40 + length
    assert counts.trained_tokens == in_the_first + trained - (length - 1) // 40


def test_a_pair_of_real_text_keeps_its_prompt_when_cut(codec_of: Callable[[str], TextCodec]):
    codec = codec_of("chatml")
    prompt = (Message("user", "one two three four"),)
    record = Record(prompt, SOURCE, chosen=(Message("assistant", "a"),), rejected=(Message("assistant", "b" * 30),))
    whole, cut = (
        PairEncoder(codec, DataConfig.model_validate({"max_length": length, "overlength": "truncate_left"}))([record])[
            0
        ]
        for length in (1000, 50)
    )
    assert isinstance(whole, Encoded)
    assert isinstance(cut, Encoded)
    (before,), (after,) = whole.items, cut.items
    lost = len(before.rejected.token_ids) - 50
    assert lost > 0
    assert after.chosen.token_ids == before.chosen.token_ids[lost:]
    assert after.rejected.token_ids == before.rejected.token_ids[lost:]
