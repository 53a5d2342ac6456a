import math

import torch

from llmkit.algorithms.dpo import dpo_loss


def test_a_policy_equal_to_its_reference_loses_ln_2():
    values = torch.tensor([-3.0, -5.0])
    loss, metrics = dpo_loss(values, values - 1, values, values - 1, beta=0.1)
    torch.testing.assert_close(loss, torch.full((2,), math.log(2)))
    assert metrics["rewards_margin"].tolist() == [0.0, 0.0]


def test_one_pair_by_hand():
    # implicit rewards 0.5 * (-1 + 2) = 0.5 and 0.5 * (-4 + 2) = -1; margin 1.5; -ln sigmoid(1.5) = 0.2014133
    loss, metrics = dpo_loss(
        torch.tensor([-1.0]), torch.tensor([-4.0]), torch.tensor([-2.0]), torch.tensor([-2.0]), beta=0.5
    )
    torch.testing.assert_close(loss, torch.tensor([0.2014133]))
    assert metrics["rewards_chosen"].item() == 0.5
    assert metrics["rewards_rejected"].item() == -1.0
    assert metrics["rewards_accuracy"].item() == 1.0


def test_label_smoothing_mixes_both_labels():
    zeros = torch.zeros(1)
    plain, _ = dpo_loss(torch.tensor([1.0]), zeros, zeros, zeros, beta=1.0)
    flipped, _ = dpo_loss(zeros, torch.tensor([1.0]), zeros, zeros, beta=1.0)
    smoothed, _ = dpo_loss(torch.tensor([1.0]), zeros, zeros, zeros, beta=1.0, label_smoothing=0.25)
    torch.testing.assert_close(smoothed, 0.75 * plain + 0.25 * flipped)


def test_gradient_is_beta_times_the_misranking_probability():
    # dL/dchosen = -beta * sigmoid(-margin), arXiv:2305.18290, section 4
    chosen = torch.tensor([0.3], requires_grad=True)
    zeros = torch.zeros(1)
    loss, _ = dpo_loss(chosen, zeros, zeros, zeros, beta=2.0)
    loss.sum().backward()
    assert chosen.grad is not None
    torch.testing.assert_close(chosen.grad, -2.0 * torch.sigmoid(torch.tensor([-0.6])))
