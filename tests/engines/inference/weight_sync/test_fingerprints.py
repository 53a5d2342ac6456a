import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkit.engines.inference.weight_sync.fingerprints import PART, fingerprint, first_difference


def test_it_is_the_sum_of_mixed_words_by_odd_numbers():
    # words 1 and 2, which mixing leaves alone: 1 * 1 + 2 * 3
    assert fingerprint(torch.tensor([1, 2])) == f"{7:016x}"


def test_places_count_beyond_one_part():
    words = torch.zeros(PART + 1, dtype=torch.int64)
    words[PART] = 1
    assert fingerprint(words) == f"{2 * PART + 1:016x}"


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40), st.data())
def test_one_changed_byte_changes_it(values, data):
    before = torch.tensor(values, dtype=torch.uint8)
    after = before.clone()
    place = data.draw(st.integers(0, len(values) - 1))
    after[place] ^= data.draw(st.integers(1, 255))
    assert fingerprint(before) != fingerprint(after)


@given(st.lists(st.integers(0, 1 << 40), min_size=2, max_size=20, unique=True), st.data())
def test_two_values_that_changed_places_change_it(values, data):
    first = data.draw(st.integers(0, len(values) - 2))
    after = list(values)
    after[first], after[first + 1] = after[first + 1], after[first]
    assert fingerprint(torch.tensor(values)) != fingerprint(torch.tensor(after))


def test_flipped_signs_change_it():
    weights = torch.randn(64, dtype=torch.bfloat16, generator=torch.Generator().manual_seed(0))
    assert fingerprint(weights) != fingerprint(-weights)


def test_where_a_tensor_lies_does_not_matter():
    whole = torch.arange(30, dtype=torch.bfloat16)
    assert fingerprint(whole[1:14]) == fingerprint(whole[1:14].clone())
    matrix = whole.view(5, 6).T
    assert fingerprint(matrix) == fingerprint(matrix.contiguous())


def test_the_first_tensor_that_differs_or_is_missing_is_named():
    assert first_difference({"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}) is None
    assert first_difference({"a": "1", "b": "2"}, {"a": "1", "b": "3"}) == "b"
    assert first_difference({"a": "1", "b": "2"}, {"b": "2"}) == "a"
