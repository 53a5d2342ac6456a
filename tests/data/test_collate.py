import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.collate import collate, collate_groups, common_prefix, divide_group, micro_batches, num_tokens
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


def answer(*token_ids: int, prompt: tuple[int, ...] = (7, 8, 9)) -> Sample:
    return Sample([*prompt, *token_ids], [0.0] * len(prompt) + [1.0] * len(token_ids), SOURCE)


class TestGroups:
    def test_what_they_begin_with_is_there_once(self):
        batch = collate_groups([[answer(1, 2), answer(3)], [answer(4, prompt=(5,))], [answer(6), answer(6)]])
        assert batch.token_ids.tolist() == [7, 8, 9, 1, 2, 3, 5, 4, 7, 8, 9, 6, 6]
        assert batch.position_ids.tolist() == [0, 1, 2, 3, 4, 3, 0, 1, 0, 1, 2, 3, 3]
        assert batch.sequence_ends == [5, 6, 8, 12, 13]
        assert batch.loss_weights.tolist() == [0, 0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1]
        assert batch.prefixes == [(0, 0), (0, 3), (0, 0), (0, 0), (8, 11)]

    def test_of_one_are_laid_end_to_end(self):
        rows = [answer(1), answer(2, 3)]
        assert collate_groups([[row] for row in rows]).prefixes is None
        assert collate_groups([[row] for row in rows]).token_ids.tolist() == collate(rows).token_ids.tolist()

    def test_tokens_that_train_are_not_shared(self):
        # both completions begin with 1, whose loss each of them has for itself
        assert common_prefix([answer(1, 2), answer(1, 3)]) == 3

    def test_every_sample_keeps_a_token(self):
        bare = Sample([7, 8, 9], [0.0] * 3, SOURCE)
        assert common_prefix([bare, bare]) == 2
        assert common_prefix([answer(1), bare]) == 2

    def test_the_first_tokens_weight_counts_for_nothing(self):
        every = Sample([7, 8, 1], [1.0, 0.0, 1.0], SOURCE)
        assert common_prefix([every, answer(1, prompt=(7, 8))]) == 2

    def test_their_tokens_are_counted_once(self):
        assert num_tokens([answer(1, 2), answer(3), answer(4)]) == 3 + 4
        assert num_tokens([answer(1, 2)]) == 5

    def test_large_ones_are_divided_with_the_prompt_in_each_part(self):
        some = [answer(1, 1), answer(2, 2), answer(3), answer(*[4] * 9), answer(5)]
        assert divide_group(some, 8) == [some[:3], some[3:4], some[4:]]
        assert divide_group(some, 100) == [some]

    @settings(deadline=None, max_examples=100)
    @given(
        shapes=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=5), min_size=1, max_size=6),
        budget=st.integers(4, 40),
    )
    def test_fit_their_micro_batches(self, shapes: list[list[int]], budget: int):
        groups = [
            [answer(*[number] * n, prompt=(1, 2, number)) for n in lengths] for number, lengths in enumerate(shapes)
        ]
        parts = [part for group in groups for part in divide_group(group, budget)]
        assert [sample for part in parts for sample in part] == [sample for group in groups for sample in group]
        for micro in micro_batches(parts, budget):
            size = len(collate_groups(micro).token_ids)
            assert size == sum(map(num_tokens, micro))
            assert size <= budget or sum(map(len, micro)) == 1
