import json
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.config.schema import BatchConfig
from llmkit.data.loading.sampler import StepSampler
from llmkit.errors import CheckpointError, DataError

PACKINGS: list[dict[str, Any]] = [
    {"rows_per_step": 3},
    {"tokens_per_step": 20},
    {"rows_per_step": 2, "packing": "best_fit", "pack_length": 16},
    {"tokens_per_step": 40, "packing": "best_fit", "pack_length": 16},
    {"rows_per_step": 3, "packing": "length"},
    {"tokens_per_step": 20, "packing": "length"},
]
LENGTHS = [5, 9, 2, 14, 7, 3, 8, 1, 6, 4, 11]


def sampler_of(
    lengths: list[int], *, seed: int = 0, shuffle: bool = True, order: Any = None, **batch: Any
) -> StepSampler:
    return StepSampler(
        np.array(lengths, np.int64), BatchConfig.model_validate(batch), seed=seed, shuffle=shuffle, order=order
    )


def steps(sampler: StepSampler, count: int) -> list[list[int]]:
    return [sampler.next_step().tolist() for _ in range(count)]


def items(sampler: StepSampler, count: int) -> list[int]:
    drawn: list[int] = []
    while len(drawn) < count:
        drawn += sampler.next_step().tolist()
    return drawn[:count]


def test_every_epoch_has_every_item_once_in_another_order():
    drawn = items(sampler_of([1] * 50, seed=3, rows_per_step=1), 200)
    epochs = [drawn[start : start + 50] for start in range(0, 200, 50)]
    assert all(sorted(epoch) == list(range(50)) for epoch in epochs)
    assert all(one != other for one, other in pairwise(epochs))


def test_the_order_is_the_same_on_every_machine():
    # Written down once: a change here changes what a seed means for everyone's runs.
    assert items(sampler_of([1] * 10, rows_per_step=4), 10) == [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
    bins = sampler_of(LENGTHS, packing="best_fit", pack_length=16, rows_per_step=1)
    assert steps(bins, 5) == [[5, 9], [8, 6, 7], [0, 10], [3, 2], [1, 4]]
    groups = sampler_of(LENGTHS, packing="length", rows_per_step=2)
    assert steps(groups, 6) == [[10, 5], [9], [7, 4], [1, 8], [3, 2], [6, 0]]


def test_the_order_of_an_epoch_does_not_depend_on_how_items_are_taken():
    one, other = sampler_of([1] * 7, seed=1, rows_per_step=3), sampler_of([1] * 7, seed=1, rows_per_step=5)
    assert items(one, 20) == items(other, 20)
    assert items(sampler_of([1] * 7, seed=2), 7) != items(sampler_of([1] * 7, seed=1), 7)


def test_without_shuffling_items_keep_their_order():
    assert steps(sampler_of([1] * 3, shuffle=False, rows_per_step=2), 4) == [[0, 1], [2, 0], [1, 2], [0, 1]]


def test_without_shuffling_bins_come_by_their_first_item():
    # 16: 14 + 2, 11 + 5, 9 + 7, 8 + 6 + 1 (0 left: 1), 4 + 3.
    sampler = sampler_of(LENGTHS, shuffle=False, packing="best_fit", pack_length=16, rows_per_step=2)
    assert steps(sampler, 3) == [[0, 10, 1, 4], [2, 3, 5, 9], [6, 7, 8, 0, 10]]


def test_as_many_items_as_fit_the_tokens():
    # 5 + 9 are 14, and 2 more 16; 14 + 7 would be 21; 7 + 3 + 8 are 18, and 1 more 19.
    sampler = sampler_of(LENGTHS, shuffle=False, tokens_per_step=20)
    assert steps(sampler, 4) == [[0, 1, 2], [3], [4, 5, 6, 7], [8, 9]]
    # 11 and then the next epoch's 5; 9 would make it 25.
    assert sampler.next_step().tolist() == [10, 0]
    assert sampler.epoch == pytest.approx(1 + 1 / 11)


def test_an_item_of_too_many_tokens_is_a_step_of_its_own():
    assert steps(sampler_of([30, 2, 30], shuffle=False, tokens_per_step=10), 4) == [[0], [1], [2], [0]]


def test_a_group_of_similar_lengths_is_a_step():
    for batch in ({"rows_per_step": 4}, {"tokens_per_step": 60}):
        lengths = np.random.default_rng(0).integers(1, 30, 120).tolist()
        sampler = sampler_of(lengths, packing="length", **batch)
        drawn = steps(sampler, sampler.num_steps(1))
        assert sorted(item for step in drawn for item in step) == list(range(120))
        spread = np.mean([np.ptp([lengths[item] for item in step]) for step in drawn])
        mixed = sampler_of(lengths, **batch)
        assert spread < 0.5 * np.mean([np.ptp([lengths[item] for item in step]) for step in steps(mixed, 20)])
        shorter = [max(lengths[item] for item in step) for step in drawn]
        assert shorter != sorted(shorter, reverse=True)


def test_the_epoch_is_that_of_the_next_item():
    sampler = sampler_of([1] * 4, rows_per_step=2)
    assert sampler.epoch == 0
    sampler.next_step()
    assert sampler.epoch == 0.5
    sampler.next_step()
    assert sampler.epoch == 1


def test_an_order_of_its_own_may_differ_in_length_from_epoch_to_epoch():
    sampler = sampler_of([1] * 5, rows_per_step=2, order=lambda epoch: np.array([[4, 4, 0], [1], [2, 3]][epoch]))
    assert steps(sampler, 3) == [[4, 4], [0, 1], [2, 3]]
    assert (sampler.num_steps(1), sampler.num_steps(1.5), sampler.num_steps(3)) == (2, 2, 3)


def test_an_epoch_without_items_is_an_error():
    sampler = sampler_of([1], order=lambda epoch: np.empty(0, np.int64))
    with pytest.raises(DataError, match="No row is left in epoch 0"):
        sampler.next_step()


def test_shares_of_epochs_are_counted_exactly():
    # In floating point, 0.1 * 30 is more than 3.
    assert sampler_of([1] * 30, rows_per_step=1).num_steps(0.1) == 3
    assert sampler_of([1] * 30, rows_per_step=16).num_steps(3) == 6
    assert sampler_of([1] * 30, rows_per_step=16).num_steps(0.01) == 1


@pytest.mark.parametrize("batch", PACKINGS)
@pytest.mark.parametrize("num_epochs", [1, 2.5, 3])
def test_so_many_steps_pass_so_many_epochs(batch: dict[str, Any], num_epochs: float):
    sampler = sampler_of(LENGTHS, seed=1, **batch)
    num_steps = sampler.num_steps(num_epochs)
    steps(sampler, num_steps - 1)
    assert sampler.epoch < num_epochs
    before = sampler.state_dict()
    sampler.next_step()
    # A group of similar lengths is never filled up from the next epoch; other steps are.
    assert sampler.epoch >= num_epochs
    assert sampler.state_dict() != before
    assert sampler.num_steps(num_epochs) == num_steps


@pytest.mark.parametrize("batch", PACKINGS)
def test_every_epoch_has_every_item_once_however_they_are_packed(batch: dict[str, Any]):
    drawn = items(sampler_of(LENGTHS, seed=4, **batch), 3 * len(LENGTHS))
    for epoch in range(3):
        assert sorted(drawn[epoch * 11 : epoch * 11 + 11]) == list(range(11))


@settings(deadline=None, max_examples=150)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=15),
    seed=st.integers(0, 99),
    before=st.integers(0, 15),
    shuffle=st.booleans(),
    batch=st.sampled_from(PACKINGS),
)
def test_a_saved_position_goes_on_to_the_item(
    lengths: list[int], seed: int, before: int, shuffle: bool, batch: dict[str, Any]
):
    whole = steps(sampler_of(lengths, seed=seed, shuffle=shuffle, **batch), before + 6)
    sampler = sampler_of(lengths, seed=seed, shuffle=shuffle, **batch)
    assert steps(sampler, before) == whole[:before]
    resumed = sampler_of(lengths, seed=seed, shuffle=shuffle, **batch)
    resumed.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert resumed.epoch == sampler.epoch
    assert steps(resumed, 6) == whole[before:]


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("num_items", {"lengths": [4] * 5}),
        ("seed", {"seed": 1}),
        ("shuffle", {"shuffle": False}),
        ("packing", {"packing": "none"}),
        ("pack_length", {"pack_length": 32}),
        ("num_tokens", {"lengths": [4, 4, 5]}),
    ],
)
def test_a_position_in_other_data_is_refused(key: str, other: dict[str, Any]):
    settings = {"lengths": [4] * 3, "packing": "best_fit", "pack_length": 16}
    with pytest.raises(CheckpointError, match=rf"was saved with {key}=.*use the same data and settings"):
        sampler_of(**{**settings, **other}).load_state_dict(sampler_of(**settings).state_dict())


def test_a_position_among_groups_is_refused_under_another_size():
    saved = sampler_of([4] * 3, packing="length", rows_per_step=2).state_dict()
    with pytest.raises(CheckpointError, match="rows_per_step=2, this run has 3"):
        sampler_of([4] * 3, packing="length", rows_per_step=3).load_state_dict(saved)


def test_no_items_is_an_error():
    with pytest.raises(DataError, match="no rows"):
        sampler_of([])
