from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.packing import Bins, best_fit_decreasing, count_steps, length_groups, ranges, stable_order, step_ends


def packed(lengths: list[int], capacity: int) -> list[list[int]]:
    return [numbers.tolist() for numbers in best_fit_decreasing(np.array(lengths, np.int64), capacity)]


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing as a textbook has it."""
    bins: list[list[int]] = []
    rooms: list[int] = []
    for number in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        fitting = [(room, b) for b, room in enumerate(rooms) if room >= lengths[number]]
        if fitting:
            _, chosen = min(fitting)
        else:
            chosen = len(bins)
            bins.append([])
            rooms.append(capacity)
        bins[chosen].append(number)
        rooms[chosen] -= lengths[number]
    return [sorted(numbers) for numbers in bins]


def test_longest_first_each_into_the_tightest_gap():
    # 6 and 5 open a bin each; 4 fills up the first, 3 and 2 the second.
    assert packed([2, 6, 3, 4, 5], 10) == [[1, 3], [0, 2, 4]]


def test_it_is_not_first_fit():
    # 8 leaves 4, 6 and 5 leave 1: the 1 goes there, and not into the first bin that has room.
    assert packed([8, 6, 5, 1], 12) == [[0], [1, 2, 3]]


def test_equal_lengths_fill_bins_by_number():
    assert packed([3] * 7, 10) == [[0, 1, 2], [3, 4, 5], [6]]


def test_an_item_that_is_too_long_stands_alone():
    assert packed([25, 10, 1, 11], 10) == [[0], [3], [1], [2]]


def test_nothing_needs_no_bin():
    bins = best_fit_decreasing(np.empty(0, np.int64), 10)
    assert (len(bins), list(bins), bins.items.dtype) == (0, [], np.int64)


@pytest.mark.parametrize(("lengths", "capacity"), [([1, 0], 4), ([1], 0), ([-3], 4)])
def test_items_without_tokens_are_refused(lengths: list[int], capacity: int):
    with pytest.raises(ValueError, match="lengths and a capacity of at least 1"):
        packed(lengths, capacity)


@settings(deadline=None, max_examples=400)
@given(lengths=st.lists(st.integers(1, 24), max_size=60), capacity=st.integers(1, 30))
def test_it_is_what_placing_items_one_by_one_gives(lengths: list[int], capacity: int):
    assert packed(lengths, capacity) == one_by_one(lengths, capacity)


@settings(deadline=None, max_examples=60)
@given(lengths=st.lists(st.integers(1, 300_000), max_size=30), capacity=st.integers(1, 300_000))
def test_so_it_is_for_lengths_of_more_than_sixteen_bits(lengths: list[int], capacity: int):
    assert packed(lengths, capacity) == one_by_one(lengths, capacity)


def test_so_it_is_for_many_items():
    lengths = np.random.default_rng(0).lognormal(4.5, 0.7, 3000).clip(1, 512).astype(np.int64).tolist()
    assert packed(lengths, 512) == one_by_one(lengths, 512)


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 40), min_size=1, max_size=80), capacity=st.integers(1, 60))
def test_every_item_is_in_one_bin_within_its_capacity(lengths: list[int], capacity: int):
    bins = packed(lengths, capacity)
    assert sorted(number for numbers in bins for number in numbers) == list(range(len(lengths)))
    assert all(len(numbers) == 1 or sum(lengths[n] for n in numbers) <= capacity for numbers in bins)


def test_bins_by_their_parts():
    bins = Bins.of(np.array([2, 0, 1, 0, 2]), 3)
    assert [numbers.tolist() for numbers in bins] == [[1, 3], [2], [0, 4]]
    assert (bins.sizes.tolist(), bins.starts.tolist(), bins.ends.tolist()) == ([2, 1, 2], [0, 2, 3], [2, 3, 5])
    assert bins.between(1, 3).tolist() == [2, 0, 4]
    assert bins.between(2, 2).tolist() == []
    assert bins.totals(np.array([10, 1, 100, 2, 20])).tolist() == [3, 100, 30]
    assert [numbers.tolist() for numbers in bins.reordered(np.array([2, 0, 1]))] == [[0, 4], [1, 3], [2]]


def test_groups_are_of_similar_lengths():
    # 200 items in groups of 5 are 40 groups: mega-batches of 10 groups, so that lengths meet within 50 items.
    lengths = np.random.default_rng(1).permutation(np.arange(1, 201))
    groups = length_groups(lengths, 5)
    assert groups.sizes.tolist() == [5] * 40
    assert sorted(groups.items.tolist()) == list(range(200))
    for mega_batch in range(4):
        numbers = groups.between(10 * mega_batch, 10 * mega_batch + 10)
        assert sorted(numbers.tolist()) == list(range(50 * mega_batch, 50 * mega_batch + 50))
        spans = [set(lengths[group].tolist()) for group in list(groups)[10 * mega_batch : 10 * mega_batch + 10]]
        ends = sorted((min(span), max(span)) for span in spans)
        assert all(high < low for (_, high), (low, _) in pairwise(ends))


def test_the_last_group_has_what_is_left():
    assert length_groups(np.arange(1, 8), 3).sizes.tolist() == [3, 3, 1]


@settings(deadline=None, max_examples=100)
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=120), budget=st.integers(1, 200))
def test_groups_by_tokens_keep_to_their_budget(lengths: list[int], budget: int):
    groups = length_groups(np.array(lengths), 8, budget)
    assert sorted(groups.items.tolist()) == list(range(len(lengths)))
    assert groups.sizes.min() >= 1
    totals = groups.totals(np.array(lengths))
    assert all(total <= budget or size == 1 for total, size in zip(totals, groups.sizes, strict=True))


def test_groups_of_nothing():
    assert len(length_groups(np.empty(0, np.int64), 4)) == 0


def test_a_step_ends_before_the_item_that_no_longer_fits():
    # 3 + 2 fit in 5; 2 + 9 do not; 9 stands alone; 1 + 4 fit.
    assert step_ends(np.array([3, 2, 9, 1, 4]), 5).tolist() == [2, 2, 3, 5, 5]


def test_steps_go_on_from_epoch_to_epoch():
    # Within 5: (3, 2), (4, then 1 of the next epoch), (5), (2, ...)
    assert count_steps([np.cumsum([3, 2, 4]), np.cumsum([1, 5, 2])], 5) == 4
    assert count_steps([np.cumsum([1]), np.cumsum([1]), np.cumsum([1])], 5) == 1


@settings(deadline=None, max_examples=200)
@given(
    epochs=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=5),
    budget=st.integers(1, 30),
)
def test_counted_steps_are_those_of_filling_one_by_one(epochs: list[list[int]], budget: int):
    steps, tokens = 1, 0
    for number, length in enumerate([length for epoch in epochs for length in epoch]):
        if number and tokens + length > budget:
            steps, tokens = steps + 1, 0
        tokens += length
    assert count_steps([np.cumsum(epoch) for epoch in epochs], budget) == steps


def test_ranges_one_after_another():
    assert ranges(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.one_of(st.integers(0, 5), st.integers(0, 2**40)), max_size=50))
def test_a_stable_order(values: list[int]):
    assert stable_order(np.array(values, np.int64)).tolist() == sorted(range(len(values)), key=values.__getitem__)
