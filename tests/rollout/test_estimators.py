"""pass@k and the majority's reward, beside counting every choice of k samples."""

from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.rollout.estimators import attempts, majority, pass_at_k


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.data())
def test_pass_at_k_is_the_share_of_choices_with_a_right_one(right: list[bool], data: st.DataObject):
    k = data.draw(st.integers(1, len(right)))
    choices = [any(chosen) for chosen in combinations(right, k)]
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(fmean(choices), abs=1e-12)


def test_pass_at_k_by_hand():
    # Of 4 samples one is right: 3 of the 6 pairs hold it.
    assert pass_at_k(4, 1, 2) == 0.5
    assert pass_at_k(4, 0, 4) == 0.0
    assert pass_at_k(4, 3, 2) == 1.0


def test_pass_at_k_of_thousands_of_samples_is_finite():
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)


def test_the_answer_with_most_votes_counts():
    assert majority(["7", "7", "9"], [0.0, 0.0, 1.0]) == 0.0
    assert majority(["7", "9", "9"], [0.0, 1.0, 1.0]) == 1.0


def test_who_gives_no_answer_does_not_vote():
    assert majority([None, None, "9"], [0.0, 0.0, 1.0]) == 1.0
    assert majority([None, None], [0.0, 0.0]) == 0.0


def test_a_tie_is_worth_the_mean_of_the_tied_answers():
    assert majority(["7", "9"], [0.0, 1.0]) == 0.5


@pytest.mark.parametrize(("size", "expected"), [(0, []), (1, [1]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_attempts_are_powers_of_two_and_the_whole_group(size: int, expected: list[int]):
    assert attempts(size) == expected
