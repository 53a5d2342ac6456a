import math

import pytest
import torch

from llmkit.algorithms.sft import cross_entropy, dft


def test_cross_entropy_is_the_negative_logprob():
    assert cross_entropy(torch.tensor([-1.0, -0.5])).tolist() == [1.0, 0.5]


def test_label_smoothing_is_that_of_pytorch():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = torch.tensor([0, 6, 3, 3, 1])
    logprobs = logits.log_softmax(-1)
    chosen = logprobs.gather(1, targets[:, None])[:, 0]
    expected = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.3, reduction="none")
    torch.testing.assert_close(cross_entropy(chosen, logprobs.mean(-1), 0.3), expected, rtol=1e-13, atol=0.0)


def test_label_smoothing_by_hand():
    # two tokens, p = 3/4 and 1/4: 0.8 * -ln(3/4) + 0.2 * -(ln(3/4) + ln(1/4)) / 2
    high, low = math.log(0.75), math.log(0.25)
    loss = cross_entropy(torch.tensor([high]), torch.tensor([(high + low) / 2]), 0.2)
    assert loss.item() == pytest.approx(0.3975433, abs=1e-6)


def test_dft_weighs_with_the_probability_and_its_gradient_is_minus_the_probability():
    logprobs = torch.tensor([math.log(0.5), math.log(0.01)], requires_grad=True)
    losses = dft(logprobs)
    losses.sum().backward()
    torch.testing.assert_close(losses.detach(), torch.tensor([0.5 * math.log(2), 0.01 * math.log(100)]))
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.tensor([-0.5, -0.01]))
