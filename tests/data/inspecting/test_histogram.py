"""Figures of lengths, and bins with round bounds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.data.inspecting.histogram import Bin, bins, summarize_lengths


def test_the_figures_of_a_hundred_lengths():
    lengths = summarize_lengths(np.arange(1, 101))
    # 95 of the numbers 1 to 100 do not exceed 95; the middle lies between 50 and 51.
    assert (lengths.min, lengths.median, lengths.mean) == (1, 50.5, 50.5)
    assert (lengths.p95, lengths.p99, lengths.max) == (95, 99, 100)


def test_bins_have_one_round_width():
    assert bins(np.array([3, 4, 12, 25])) == [
        Bin(2, 3, 1), Bin(4, 5, 1), Bin(6, 7, 0), Bin(8, 9, 0), Bin(10, 11, 0), Bin(12, 13, 1),
        Bin(14, 15, 0), Bin(16, 17, 0), Bin(18, 19, 0), Bin(20, 21, 0), Bin(22, 23, 0), Bin(24, 25, 1),
    ]  # fmt: skip


def test_what_lies_far_out_has_a_bin_of_its_own():
    found = bins(np.array([10] * 190 + [15] * 9 + [5000]))
    assert found[0] == Bin(10, 10, 190)
    assert found[-1] == Bin(16, 5000, 1)


def test_no_lengths_have_no_bins():
    assert bins(np.zeros(0, np.int64)) == []


@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=300))
def test_every_length_is_in_exactly_one_bin(lengths: list[int]):
    found = bins(np.array(lengths))
    assert sum(bin.count for bin in found) == len(lengths)
    for bin in found:
        assert bin.count == sum(bin.low <= length <= bin.high for length in lengths)
    assert len(found) <= 16
    assert found[-1].high == max(lengths)


@pytest.mark.parametrize(("low", "high", "label"), [(5, 5, "5"), (1000, 1999, "1,000-1,999")])
def test_a_bin_says_its_lengths(low: int, high: int, label: str):
    assert Bin(low, high, 1).label == label
