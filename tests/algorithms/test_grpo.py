import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llmkit.algorithms.grpo import group_advantages, grpo_loss, kl_k3


def test_one_winner_in_four():
    # mean 1/4, population deviation sqrt(3)/4: the winner gets 3/sqrt(3), the others -1/sqrt(3)
    advantages = group_advantages(torch.tensor([1.0, 0.0, 0.0, 0.0]), torch.zeros(4, dtype=torch.int64))
    torch.testing.assert_close(advantages, torch.tensor([3.0, -1.0, -1.0, -1.0]) / 3**0.5, rtol=1e-4, atol=0.0)


def test_equal_rewards_give_zero():
    advantages = group_advantages(torch.ones(3), torch.zeros(3, dtype=torch.int64))
    assert advantages.tolist() == [0.0, 0.0, 0.0]


def test_unscaled_advantages_are_differences_from_the_mean():
    advantages = group_advantages(torch.tensor([3.0, 1.0]), torch.tensor([7, 7]), scale_by_std=False)
    assert advantages.tolist() == [1.0, -1.0]


def test_a_group_that_lost_a_member_leaves_its_neighbours_alone():
    rewards = torch.tensor([1.0, 0.0, 5.0, 1.0, 0.0])
    ids = torch.tensor([0, 0, 1, 2, 1])
    with pytest.raises(ValueError, match="at least two"):
        group_advantages(rewards, ids)
    advantages = group_advantages(rewards[[0, 1, 2, 4]], ids[[0, 1, 2, 4]])
    torch.testing.assert_close(advantages, torch.tensor([1.0, -1.0, 1.0, -1.0]), rtol=1e-4, atol=0.0)


@given(st.lists(st.floats(-10, 10, width=32), min_size=2, max_size=12))
def test_each_group_sums_to_zero(rewards: list[float]):
    count = len(rewards)
    both = torch.tensor(rewards + rewards[::-1], dtype=torch.float64)
    ids = torch.tensor([0] * count + [1] * count)
    advantages = group_advantages(both, ids)
    assert abs(float(advantages[:count].sum())) < 1e-5 * count
    torch.testing.assert_close(advantages[:count].flip(0), advantages[count:])


def test_on_policy_the_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    advantages = torch.tensor([2.0, -1.0, 0.0])
    loss, metrics = grpo_loss(logprobs, logprobs.detach(), advantages, clip_low=0.2, clip_high=0.2)
    loss.sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, -advantages)
    assert metrics["ratio_clipped"].sum() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, 0.0),  # too likely already, and good: held at 1 + 0.2, no gradient
        (0.5, 1.0, -0.5, -0.5),  # less likely than before, and good: pulled back
        (0.5, -1.0, 0.8, 0.0),  # already rarer than 1 - 0.2, and bad: held, no gradient
        (1.5, -1.0, 1.5, 1.5),  # more likely, and bad: pushed down
    ],
)
def test_clipping_in_all_four_corners(ratio: float, advantage: float, loss: float, gradient: float):
    old = torch.tensor([-1.0])
    new = (old + torch.tensor(ratio).log()).requires_grad_()
    value, metrics = grpo_loss(new, old, torch.tensor([advantage]), clip_low=0.2, clip_high=0.2)
    value.sum().backward()
    assert new.grad is not None
    torch.testing.assert_close(value.detach(), torch.tensor([loss]))
    torch.testing.assert_close(new.grad, torch.tensor([gradient]))
    assert metrics["ratio_clipped"].item() == float(gradient == 0.0)


def test_kl_k3_by_hand():
    # policy 0.5, reference 0.25: r = 1/2, k3 = 1/2 - 1 - ln(1/2) = 0.19315
    kl = kl_k3(torch.tensor([0.5]).log(), torch.tensor([0.25]).log())
    torch.testing.assert_close(kl, torch.tensor([0.1931472]))


def test_kl_k3_is_unbiased():
    policy = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    reference = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)
    expected = (policy * (policy / reference).log()).sum()
    estimate = (policy * kl_k3(policy.log(), reference.log())).sum()
    torch.testing.assert_close(estimate, expected)


def test_the_penalty_adds_its_weight_times_the_divergence():
    logprobs, reference = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
    loss, metrics = grpo_loss(
        logprobs, logprobs, torch.tensor([1.0]), clip_low=0.2, clip_high=0.2, reference_logprobs=reference, kl_coef=0.1
    )
    torch.testing.assert_close(loss, -torch.ones(1) + 0.1 * metrics["kl"])
