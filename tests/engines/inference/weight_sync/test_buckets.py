import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkit.engines.inference.weight_sync.buckets import buckets


def names(sizes: list[int], most: int) -> list[list[str]]:
    tensors = [(str(place), torch.zeros(size, dtype=torch.uint8)) for place, size in enumerate(sizes)]
    return [[name for name, _ in bucket] for bucket in buckets(tensors, most)]


def test_as_many_go_together_as_fit():
    assert names([4, 4, 4, 2], 8) == [["0", "1"], ["2", "3"]]


def test_a_large_one_goes_alone():
    assert names([2, 20, 2], 8) == [["0"], ["1"], ["2"]]


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 40))
def test_all_go_in_order_and_no_bucket_is_empty(sizes, most):
    found = names(sizes, most)
    assert [name for bucket in found for name in bucket] == [str(place) for place in range(len(sizes))]
    assert all(bucket and (len(bucket) == 1 or sum(sizes[int(name)] for name in bucket) <= most) for bucket in found)
