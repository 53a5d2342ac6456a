import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.collate import collate, micro_batches, num_tokens
from llmkit.types import PreferencePair, Sample, Source

SOURCE = Source("train.jsonl", 1)


def sample(length: int, first: int = 0) -> Sample:
    return Sample(list(range(first, first + length)), [0.0] + [0.5] * (length - 1), SOURCE)


def test_samples_lie_end_to_end():
    batch = collate([sample(3, first=10), sample(2, first=20)])
    assert batch.token_ids.tolist() == [10, 11, 12, 20, 21]
    assert batch.position_ids.tolist() == [0, 1, 2, 0, 1]
    assert batch.sequence_ends == [3, 5]
    assert batch.loss_weights.tolist() == [0.0, 0.5, 0.5, 0.0, 0.5]
    assert (batch.token_ids.dtype, batch.position_ids.dtype, batch.loss_weights.dtype) == (
        torch.int64,
        torch.int64,
        torch.float32,
    )


def test_the_first_token_of_a_sequence_has_no_weight():
    batch = collate([Sample([1, 2], [1.0, 1.0], SOURCE), Sample([3], [1.0], SOURCE)])
    assert batch.loss_weights.tolist() == [0.0, 1.0, 0.0]


def test_nothing_cannot_be_collated():
    for samples in ([], [Sample([], [], SOURCE)]):
        with pytest.raises(ValueError, match="at least one sample, and a token in each"):
            collate(samples)


def test_micro_batches_fit_the_tightest_gap():
    # 6 and 5 open a batch each; 4 fills the first, 3 and 2 the second.
    batches = micro_batches([sample(n) for n in (2, 6, 3, 4, 5)], tokens_per_micro_batch=10)
    assert [[num_tokens(item) for item in batch] for batch in batches] == [[2, 3, 5], [6, 4]]


def test_a_sample_over_the_budget_stands_alone():
    batches = micro_batches([sample(2), sample(30), sample(3)], tokens_per_micro_batch=10)
    assert [[num_tokens(item) for item in batch] for batch in batches] == [[2, 3], [30]]


def test_pairs_stay_together():
    pairs = [PreferencePair(sample(3), sample(4)), PreferencePair(sample(1), sample(1))]
    assert [num_tokens(pair) for pair in pairs] == [7, 2]
    assert micro_batches(pairs, tokens_per_micro_batch=8) == [[pairs[0]], [pairs[1]]]


@settings(deadline=None, max_examples=200)
@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=40), budget=st.integers(1, 60))
def test_every_item_is_in_one_micro_batch_within_the_budget(lengths: list[int], budget: int):
    samples = [sample(length, first=100 * index) for index, length in enumerate(lengths)]
    batches = micro_batches(samples, budget)
    assert sorted(item.token_ids[0] for batch in batches for item in batch) == [s.token_ids[0] for s in samples]
    assert all(len(batch) == 1 or sum(map(num_tokens, batch)) <= budget for batch in batches)
    assert batches == micro_batches(samples, budget)
    weight = sum(float(collate(batch).loss_weights.sum()) for batch in batches)
    assert weight == pytest.approx(sum(sum(s.loss_weights) for s in samples))
