"""In which order rows of several sources follow one another."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.mixtures import mixing
from llmkit.data.mixtures.mixing import Stopping, Track, interleave, shuffled_passes
from llmkit.errors import DataError

settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")

WEIGHTS = st.floats(0.05, 20)
SIZES = st.integers(1, 12)
SOURCES = st.lists(st.tuples(SIZES, WEIGHTS), min_size=1, max_size=4)


def tracks_of(sources: list[tuple[int, float]]) -> list[Track]:
    """Sources of (rows, weight), whose rows have numbers one source after the other."""
    tracks: list[Track] = []
    start = 0
    for size, weight in sources:
        tracks.append(Track(partial(rows_in_order, np.arange(start, start + size)), weight))
        start += size
    return tracks


def rows_in_order(rows: np.ndarray, first: int, count: int) -> np.ndarray:
    return np.tile(rows, count)


def source_of(rows: np.ndarray, sources: list[tuple[int, float]]) -> np.ndarray:
    return np.searchsorted(np.cumsum([size for size, _ in sources]), rows, side="right")


def mixed(sources: list[tuple[int, float]], stopping: Stopping, lengths: list[int] | None = None) -> list[int]:
    return interleave(tracks_of(sources), stopping, np.array(lengths) if lengths else None).tolist()


@pytest.mark.parametrize(
    ("stopping", "rows"),
    [
        # Keys: rows 0-3 have 0, 1/2, 1, 3/2; rows 4-5 have 0, 1. The first source is through at 4/2, the second at 2/1.
        ("first_exhausted", [0, 4, 1, 2, 5, 3]),
        ("all_exhausted", [0, 4, 1, 2, 5, 3]),
        ("without_replacement", [0, 4, 1, 2, 5, 3]),
    ],
)
def test_two_rows_of_one_source_for_one_of_the_other(stopping: Stopping, rows: list[int]):
    assert mixed([(4, 2.0), (2, 1.0)], stopping) == rows


def test_the_three_rules_for_the_end_by_hand():
    # Rows 0-2 have the keys 0, 1, 2; row 3 has 0 and is through at 1; rows 4-5 have 0, 1 and are through at 2.
    # At 1 the first source is asked before the second, which has nothing left.
    sources = [(3, 1.0), (1, 1.0), (2, 1.0)]
    assert mixed(sources, "first_exhausted") == [0, 3, 4, 1]
    assert mixed(sources, "without_replacement") == [0, 3, 4, 1, 5, 2]
    # The second source repeats at 1 and 2, after the first passes of the others, the third at 2; all end at 3.
    assert mixed(sources, "all_exhausted") == [0, 3, 4, 1, 5, 3, 2, 3, 4]


def test_weights_by_tokens_by_hand():
    # A row of the first source has 10 tokens, one of the second 30: with equal weights, three come for one.
    sources = [(6, 1.0), (2, 1.0)]
    assert mixed(sources, "all_exhausted", [10] * 6 + [30] * 2) == [0, 6, 1, 2, 3, 7, 4, 5]
    assert mixed(sources, "all_exhausted") == [0, 6, 1, 7, 2, 6, 3, 7, 4, 6, 5, 7]


@given(SOURCES)
def test_without_replacement_every_row_comes_once(sources):
    assert sorted(mixed(sources, "without_replacement")) == list(range(sum(size for size, _ in sources)))


@given(SOURCES)
def test_where_all_are_exhausted_every_row_comes_and_rounds_are_whole_but_the_last(sources):
    rows = mixed(sources, "all_exhausted")
    counts = Counter(rows)
    assert set(counts) == set(range(sum(size for size, _ in sources)))
    longest = max(range(len(sources)), key=lambda number: sources[number][0] / sources[number][1])
    start = 0
    for number, (size, _) in enumerate(sources):
        own = [counts[row] for row in range(start, start + size)]
        assert max(own) - min(own) <= 1
        assert own == sorted(own, reverse=True)
        assert number != longest or set(own) == {1}
        start += size


@given(SOURCES)
def test_where_the_first_is_exhausted_it_has_given_every_row_and_nobody_a_row_twice(sources):
    rows = mixed(sources, "first_exhausted")
    assert len(rows) == len(set(rows))
    given_of = Counter(source_of(np.array(rows), sources).tolist())
    first = min(range(len(sources)), key=lambda number: sources[number][0] / sources[number][1])
    assert given_of[first] == sources[first][0]


def shares_hold(rows: np.ndarray, sources: list[tuple[int, float]], lengths: np.ndarray) -> None:
    """At every prefix each source is at most one longest row above its share, and at most that of each other below."""
    total = sum(weight for _, weight in sources)
    given_in_all = np.cumsum(lengths[rows])
    owners = source_of(rows, sources)
    longest = [int(lengths[rows[owners == number]].max(initial=0)) for number in range(len(sources))]
    for number, (_, weight) in enumerate(sources):
        share = weight / total
        ahead = np.cumsum(np.where(owners == number, lengths[rows], 0)) - share * given_in_all
        others = sum(longest) - longest[number]
        assert ahead.max() <= longest[number] + 1e-6
        assert ahead.min() >= -share * others - 1e-6


@given(SOURCES, st.data())
def test_at_every_prefix_the_shares_are_those_of_the_weights(sources, data):
    num_rows = sum(size for size, _ in sources)
    ones = np.ones(num_rows, np.int64)
    lengths = np.array(data.draw(st.lists(st.integers(1, 99), min_size=num_rows, max_size=num_rows)))
    for stopping in ("first_exhausted", "all_exhausted"):
        shares_hold(interleave(tracks_of(sources), stopping), sources, ones)
        shares_hold(interleave(tracks_of(sources), stopping, lengths), sources, lengths)


@given(SIZES, SIZES, WEIGHTS, WEIGHTS)
def test_two_sources_are_always_within_one_row_of_their_shares(size, other_size, weight, other_weight):
    sources = [(size, weight), (other_size, other_weight)]
    for stopping in ("first_exhausted", "all_exhausted"):
        owners = source_of(interleave(tracks_of(sources), stopping), sources)
        expected = np.arange(1, len(owners) + 1) * weight / (weight + other_weight)
        assert np.abs(np.cumsum(owners == 0) - expected).max() <= 1 + 1e-9


def test_a_source_without_tokens_takes_no_part():
    assert mixed([(2, 1.0), (2, 5.0)], "all_exhausted", [3, 3, 0, 0]) == [0, 1]
    assert mixed([(2, 1.0), (2, 5.0)], "first_exhausted", [3, 3, 0, 0]) == [0, 1]
    assert sorted(mixed([(2, 1.0), (2, 5.0)], "without_replacement", [3, 3, 0, 0])) == [0, 1, 2, 3]
    assert not len(interleave(tracks_of([(2, 1.0)]), "all_exhausted", np.zeros(2, np.int64)))


def test_rows_without_tokens_at_the_end_of_the_longest_source_are_there_too():
    assert mixed([(3, 1.0), (1, 1.0)], "all_exhausted", [4, 4, 0, 4]) == [0, 3, 1, 3, 2]


def test_a_weight_that_would_repeat_a_row_a_billion_times_is_refused():
    with pytest.raises(DataError, match=r"a source of 1 rows and weight 1 would repeat 2000000000 times in an epoch"):
        interleave(tracks_of([(1, 1.0), (2, 1e-9)]), "all_exhausted")


@given(st.integers(1, 40), st.integers(0, 5), st.integers(1, 4), st.integers(0, 2**40))
def test_every_pass_is_a_permutation_of_its_own_that_does_not_depend_on_the_others(num_rows, first, count, seed):
    passes = shuffled_passes(num_rows, first, count, (seed, 3)).reshape(count, num_rows)
    for number, rows in enumerate(passes):
        assert sorted(rows) == list(range(num_rows))
        assert rows.tolist() == shuffled_passes(num_rows, first + number, 1, (seed, 3)).tolist()


def test_orders_stay_the_same_on_every_machine():
    assert shuffled_passes(6, 0, 2, (7, 1)).tolist() == [1, 3, 2, 4, 5, 0, 5, 4, 1, 2, 3, 0]
    assert mixing.derived_seed(1, 2) == 4135899693913103841
