import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from llmkit.bench.workers.packing import pack_one_by_one
from llmkit.data.packing import best_fit_decreasing


def test_each_length_goes_where_it_leaves_the_least_room():
    # 6 and 5 open bins of 10, with room for 4 and 5; 4 fits both and fills the first; 3 and 2 fill the second.
    assert pack_one_by_one([6, 5, 4, 3, 2], capacity=10) == [[0, 2], [1, 3, 4]]


def test_a_full_bin_takes_nothing_more():
    assert pack_one_by_one([4, 4], capacity=4) == [[0], [1]]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200))
def test_ours_takes_as_many_bins(lengths: list[int]):
    one_by_one = pack_one_by_one(lengths, capacity=50)
    assert sorted(item for one in one_by_one for item in one) == list(range(len(lengths)))
    assert all(sum(lengths[item] for item in one) <= 50 for one in one_by_one)
    assert len(best_fit_decreasing(np.array(lengths), 50)) == len(one_by_one)
