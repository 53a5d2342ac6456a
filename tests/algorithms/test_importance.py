import pytest
import torch

from llmkit.algorithms.importance import Correction, importance_weights

# Two sequences: policy over sampler is 4 and 1/4 in the first, 3 in the second.
SAMPLER = torch.zeros(3)
POLICY = torch.tensor([4.0, 0.25, 3.0]).log()
IDS = torch.tensor([0, 0, 1])


@pytest.mark.parametrize(
    ("action", "level", "expected", "outside"),
    [
        ("truncate", "token", [2.0, 0.5, 2.0], [1.0, 1.0, 1.0]),
        ("mask", "token", [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]),
        # geometric means sqrt(4 / 4) = 1 and 3
        ("truncate", "sequence", [1.0, 1.0, 2.0], [0.0, 0.0, 1.0]),
        ("mask", "sequence", [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]),
    ],
)
def test_by_hand(action: str, level: str, expected: list[float], outside: list[float]):
    weights, metrics = importance_weights(POLICY, SAMPLER, IDS, Correction(action, level, 0.5, 2.0))
    torch.testing.assert_close(weights, torch.tensor(expected))
    assert metrics["importance_clipped_fraction"].tolist() == outside
    unbounded = [4.0, 0.25, 3.0] if level == "token" else [1.0, 1.0, 3.0]
    torch.testing.assert_close(metrics["importance_weight_mean"], torch.tensor(unbounded))


def test_without_correction_every_token_counts():
    weights, metrics = importance_weights(POLICY, SAMPLER, IDS, Correction())
    assert weights.tolist() == [1.0, 1.0, 1.0]
    assert metrics == {}


@pytest.mark.parametrize("action", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_on_policy_every_weight_is_one(action: str, level: str):
    weights, metrics = importance_weights(POLICY, POLICY, IDS, Correction(action, level))
    assert weights.tolist() == [1.0, 1.0, 1.0]
    assert metrics["importance_clipped_fraction"].sum() == 0


def test_no_gradient_flows_through_a_weight():
    weights, _ = importance_weights(POLICY.clone().requires_grad_(), SAMPLER, IDS, Correction("truncate"))
    assert not weights.requires_grad


@pytest.mark.parametrize("correction", [Correction("drop"), Correction("mask", "word")])
def test_what_is_no_choice_is_refused(correction: Correction):
    with pytest.raises(ValueError, match=r"'drop'|'word'"):
        importance_weights(POLICY, SAMPLER, IDS, correction)
