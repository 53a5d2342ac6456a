import pytest
import torch

from llmkit.algorithms.reward_shaping import overlong_penalties, shape_rewards


def test_bias_comes_before_scale_and_both_before_the_clip():
    # (1 - 0.5) * 10 = 5, (0 - 0.5) * 10 = -5, (0.6 - 0.5) * 10 = 1
    rewards = torch.tensor([1.0, 0.0, 0.6])
    found = shape_rewards(rewards, bias=-0.5, scale=10.0, clip=3.0)
    torch.testing.assert_close(found, torch.tensor([3.0, -3.0, 1.0]))


def test_penalties_are_shaped_with_the_rewards():
    found = shape_rewards(torch.tensor([1.0, 1.0]), penalties=torch.tensor([0.0, -0.5]), scale=2.0)
    assert found.tolist() == [2.0, 1.0]


def test_nothing_asked_for_changes_nothing():
    assert shape_rewards(torch.tensor([1.0, -7.0])).tolist() == [1.0, -7.0]


@pytest.mark.parametrize(
    ("length", "penalty"),
    [(1, 0.0), (80, 0.0), (85, -0.25), (90, -0.5), (100, -1.0), (120, -1.0)],
)
def test_the_penalty_grows_over_the_buffer(length: int, penalty: float):
    # arXiv:2503.14476, equation 13: 100 tokens at most, the last 20 are the buffer
    assert overlong_penalties(torch.tensor([length]), max_length=100, buffer=20).item() == pytest.approx(penalty)
