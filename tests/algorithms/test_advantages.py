import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.advantages import advantages, lone_members, standardize, sums_to_the_end

ONE_GROUP = torch.zeros(4, dtype=torch.int64)
REWARDS = st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=12)


def close(found: torch.Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        # mean 1/4, population deviation sqrt(3)/4
        ("group_mean", "group", [3**0.5, -1 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5]),
        ("group_mean", "none", [0.75, -0.25, -0.25, -0.25]),
        ("leave_one_out", "none", [1.0, -1 / 3, -1 / 3, -1 / 3]),
        ("none", "none", [1.0, 0.0, 0.0, 0.0]),
        ("none", "batch", [3**0.5, -1 / 3**0.5, -1 / 3**0.5, -1 / 3**0.5]),
    ],
)
def test_one_winner_in_four(baseline: str, scale: str, expected: list[float]):
    close(advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), ONE_GROUP, baseline=baseline, scale=scale), expected)


@pytest.mark.parametrize(
    ("baseline", "scale", "expected"),
    [
        # groups (3, 1) and (0, 0): means 2 and 0; of all, mean 1 and squares 4, 0, 1, 1
        ("batch_mean", "none", [2.0, 0.0, -1.0, -1.0]),
        ("batch_mean", "batch", [2 / 1.5**0.5, 0.0, -1 / 1.5**0.5, -1 / 1.5**0.5]),
        ("group_mean", "batch", [1 / 0.5**0.5, -1 / 0.5**0.5, 0.0, 0.0]),
        ("group_mean", "group", [1.0, -1.0, 0.0, 0.0]),
    ],
)
def test_two_groups(baseline: str, scale: str, expected: list[float]):
    # the members of both groups in turn
    rewards, ids = torch.tensor([3.0, 0.0, 1.0, 0.0]), torch.tensor([5, 2, 5, 2])
    close(advantages(rewards, ids, baseline=baseline, scale=scale)[[0, 2, 1, 3]], expected)


@pytest.mark.parametrize("baseline", ["group_mean", "leave_one_out"])
@pytest.mark.parametrize("scale", ["group", "none"])
def test_a_group_that_lost_members_leaves_its_neighbours_alone(baseline: str, scale: str):
    rewards, ids = torch.tensor([1.0, 0.0, 5.0, 1.0, 0.0, 0.0]), torch.tensor([0, 0, 1, 2, 2, 2])
    found = advantages(rewards, ids, baseline=baseline, scale=scale)
    for members in ([0, 1], [3, 4, 5]):
        torch.testing.assert_close(
            found[members], advantages(rewards[members], ids[members], baseline=baseline, scale=scale)
        )
    assert found[2] == 0  # alone, with nothing to be compared with
    assert lone_members(ids) == 1


@settings(deadline=None)
@given(REWARDS, st.sampled_from(["group_mean", "leave_one_out"]), st.sampled_from(["group", "batch", "none"]))
def test_groups_sum_to_zero_and_order_means_nothing(rewards: list[float], baseline: str, scale: str):
    count = len(rewards)
    both = torch.tensor(rewards + rewards[::-1], dtype=torch.float64)
    ids = torch.tensor([0] * count + [1] * count)
    found = advantages(both, ids, baseline=baseline, scale=scale)
    assert abs(float(found[:count].sum())) < 1e-5 * count
    torch.testing.assert_close(found[:count].flip(0), found[count:])
    order = torch.randperm(2 * count, generator=torch.Generator().manual_seed(count))
    torch.testing.assert_close(advantages(both[order], ids[order], baseline=baseline, scale=scale), found[order])


@settings(deadline=None)
@given(REWARDS)
def test_leaving_one_out_is_the_mean_of_the_others(rewards: list[float]):
    values = torch.tensor(rewards, dtype=torch.float64)
    found = advantages(values, torch.zeros(len(rewards), dtype=torch.int64), baseline="leave_one_out", scale="none")
    for index, reward in enumerate(rewards):
        others = rewards[:index] + rewards[index + 1 :]
        assert float(found[index]) == pytest.approx(reward - sum(others) / len(others), abs=1e-9)


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_equal_rewards_give_zero(scale: str):
    assert advantages(torch.ones(4), ONE_GROUP, baseline="group_mean", scale=scale).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("baseline", "scale", "message"),
    [("median", "none", "median"), ("none", "deep", "deep"), ("batch_mean", "group", "deviations may be 0")],
)
def test_what_is_no_choice_is_refused(baseline: str, scale: str, message: str):
    with pytest.raises(ValueError, match=message):
        advantages(torch.ones(4), ONE_GROUP, baseline=baseline, scale=scale)


def test_standardized_values_have_mean_0_and_deviation_1():
    found = standardize(torch.tensor([1.0, 2.0, 3.0, 6.0]))
    assert float(found.mean()) == pytest.approx(0.0, abs=1e-6)
    assert float(found.std(correction=0)) == pytest.approx(1.0, rel=1e-5)


def test_sums_to_the_end_stay_in_their_sequence():
    values = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    assert sums_to_the_end(values, torch.tensor([0, 0, 0, 2, 2])).tolist() == [7.0, 6.0, 4.0, 24.0, 16.0]
