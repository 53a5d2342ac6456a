import math

import pytest
import torch

from llmkit.algorithms.kl import kl_estimate

HALF, QUARTER = torch.tensor([0.5]).log(), torch.tensor([0.25]).log()
POLICY = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
REFERENCE = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64)


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("k1", math.log(2)), ("k2", math.log(2) ** 2 / 2), ("k3", 0.5 - 1 + math.log(2))],
)
def test_by_hand(estimator: str, expected: float):
    # policy 1/2, reference 1/4
    assert kl_estimate(HALF, QUARTER, estimator).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_k1_and_k3_are_unbiased(estimator: str):
    expected = (POLICY * (POLICY / REFERENCE).log()).sum()
    torch.testing.assert_close((POLICY * kl_estimate(POLICY.log(), REFERENCE.log(), estimator)).sum(), expected)


def mean_gradient(estimator: str) -> torch.Tensor:
    """Of the estimate by the logits, over samples of the policy."""
    logits = POLICY.log().requires_grad_()
    estimate = kl_estimate(logits.log_softmax(0), REFERENCE.log(), estimator)
    (POLICY * estimate).sum().backward()
    assert logits.grad is not None
    return logits.grad


def test_in_a_loss_k2_has_the_gradient_of_the_divergence_and_k1_has_none():
    logits = POLICY.log().requires_grad_()
    probabilities = logits.softmax(0)
    (probabilities * (probabilities / REFERENCE).log()).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(mean_gradient("k2"), logits.grad)
    torch.testing.assert_close(mean_gradient("k1"), torch.zeros(3, dtype=torch.float64))


def test_an_unknown_estimator_is_refused():
    with pytest.raises(ValueError, match="'k4'"):
        kl_estimate(HALF, QUARTER, "k4")
