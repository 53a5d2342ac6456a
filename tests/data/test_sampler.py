from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.sampler import RowSampler
from llmkit.errors import CheckpointError, DataError


def test_every_epoch_has_every_row_once_in_another_order():
    sampler = RowSampler(50, seed=3)
    epochs = [sampler.take(50) for _ in range(4)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert all(one != other for one, other in pairwise(epochs))


def test_the_order_is_the_same_on_every_machine():
    # Written down once: a change here changes what a seed means for everyone's runs.
    assert RowSampler(10, seed=0).take(10) == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]


def test_the_order_of_an_epoch_does_not_depend_on_how_rows_are_taken():
    one, other = RowSampler(7, seed=1), RowSampler(7, seed=1)
    assert one.take(20) == [row for count in (1, 6, 7, 2, 4) for row in other.take(count)]
    assert RowSampler(7, seed=2).take(7) != RowSampler(7, seed=1).take(7)


def test_without_shuffling_rows_keep_their_order():
    assert RowSampler(3, seed=0, shuffle=False).take(7) == [0, 1, 2, 0, 1, 2, 0]


def test_the_epoch_is_that_of_the_next_row():
    sampler = RowSampler(3, seed=0)
    assert [sampler.epoch for _ in sampler.take(0)] == []
    assert sampler.epoch == 0
    sampler.take(2)
    assert (sampler.epoch, sampler.num_taken) == (0, 2)
    sampler.take(1)
    assert (sampler.epoch, sampler.num_taken) == (1, 3)


@settings(deadline=None, max_examples=100)
@given(num_rows=st.integers(1, 12), seed=st.integers(0, 99), before=st.integers(0, 40), shuffle=st.booleans())
def test_a_saved_position_goes_on_to_the_row(num_rows: int, seed: int, before: int, shuffle: bool):
    whole = RowSampler(num_rows, seed, shuffle).take(before + 10)
    sampler = RowSampler(num_rows, seed, shuffle)
    assert sampler.take(before) == whole[:before]
    resumed = RowSampler(num_rows, seed, shuffle)
    resumed.load_state_dict(sampler.state_dict())
    assert resumed.take(10) == whole[before:]


@pytest.mark.parametrize("other", [RowSampler(4, 0), RowSampler(3, 1), RowSampler(3, 0, shuffle=False)])
def test_a_position_in_other_data_is_refused(other: RowSampler):
    with pytest.raises(
        CheckpointError, match=r"was saved with (num_rows|seed|shuffle)=.*use the same data and settings"
    ):
        other.load_state_dict(RowSampler(3, 0).state_dict())


def test_no_rows_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        RowSampler(0, 0)
