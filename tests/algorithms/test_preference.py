"""Every preference loss by hand: log-ratios 1 and -2 of answers with 2 and 4 tokens, at beta 0.5."""

import math

import pytest
import torch
from torch import Tensor

from llmkit.algorithms.preference import LOSSES, Constants, Pairs
from llmkit.config.algorithms import PREFERENCE_LOSSES

LN2 = math.log(2)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def nll(x: float) -> float:
    """-ln sigmoid(x)."""
    return math.log(1 + math.exp(-x))


def pairs(chosen: float = 1.0, rejected: float = -2.0) -> Pairs:
    values = (chosen, rejected, 2.0, 4.0, -3.0)
    return Pairs(*(torch.tensor([value], dtype=torch.float64) for value in values))


def loss(name: str, given: Pairs | None = None, **constants: float) -> float:
    return LOSSES[name](given or pairs(), Constants(**{"beta": 0.5, **constants})).item()


BY_HAND = {
    # rewards 0.5 and -1, margin 1.5; per token 1 / 2 and -2 / 4, margin 1
    "sigmoid": nll(1.5),
    "sigmoid_norm": nll(0.5 * 1.0),
    "hinge": 0.0,  # 1.5 is beyond 1
    "ipo": 0.0,  # the margin per token is 1 = 1 / (2 * 0.5) already
    "robust": nll(1.5),
    "exo": sigma(1.5) * (-nll(1.5) - math.log(0.999)) + sigma(-1.5) * (-nll(-1.5) - math.log(0.001)),
    "nca": nll(0.5) + 0.5 * nll(-0.5) + 0.5 * nll(1.0),
    "bco": nll(0.5) + nll(1.0),
    "sppo": (1 - 1) ** 2 + (-2 + 1) ** 2,
    "apo_zero": (1 - sigma(0.5)) + sigma(-1.0),
    "apo_down": sigma(0.5) + (1 - sigma(1.5)),
    "discopop": nll(1.5) * (1 - sigma(30.0)) + math.exp(-1.5) * sigma(30.0),
    "sft": 3.0 / 2,
}


@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str):
    assert loss(name) == pytest.approx(BY_HAND[name], rel=1e-12, abs=1e-12)


def test_the_names_are_those_of_the_configuration():
    assert tuple(LOSSES) == PREFERENCE_LOSSES == tuple(BY_HAND)


@pytest.mark.parametrize(
    ("name", "constants", "expected"),
    [
        ("sigmoid", {"label_smoothing": 0.25}, 0.75 * nll(1.5) + 0.25 * nll(-1.5)),
        ("robust", {"label_smoothing": 0.25}, (0.75 * nll(1.5) - 0.25 * nll(-1.5)) / 0.5),
        (
            "exo",
            {"label_smoothing": 0.25},
            sigma(1.5) * (math.log(sigma(1.5) / 0.75)) + sigma(-1.5) * math.log(sigma(-1.5) / 0.25),
        ),
        ("bco", {"mean_reward": -0.25}, nll(0.75) + nll(0.75)),  # rewards 0.5 and -1, their mean -0.25
        ("discopop", {"discopop_temperature": 1.5}, nll(1.5) * (1 - sigma(1.0)) + math.exp(-1.5) * sigma(1.0)),
        ("hinge", {"beta": 0.1}, 0.7),
        ("ipo", {"beta": 0.25}, 1.0),
        ("sppo", {"beta": 0.25}, (1 - 2) ** 2 + (-2 + 2) ** 2),
    ],
)
def test_constants_by_hand(name: str, constants: dict[str, float], expected: float):
    assert loss(name, None, **constants) == pytest.approx(expected, rel=1e-12)


def test_a_policy_equal_to_its_reference():
    expected = {"sigmoid": LN2, "hinge": 1.0, "ipo": 1.0, "nca": 2 * LN2, "bco": 2 * LN2, "sppo": 2.0,
                "apo_zero": 1.0, "apo_down": 1.0, "discopop": (LN2 + 1) / 2}  # fmt: skip
    for name, value in expected.items():
        assert loss(name, pairs(0.0, 0.0)) == pytest.approx(value), name


def test_robust_is_unbiased_where_labels_flip():
    # labels wrong with probability 0.2: the mean over right and flipped labels is the plain loss of the right one
    right, flipped = pairs(1.0, -2.0), pairs(-2.0, 1.0)
    mean = 0.8 * loss("robust", right, label_smoothing=0.2) + 0.2 * loss("robust", flipped, label_smoothing=0.2)
    assert mean == pytest.approx(loss("sigmoid", right))


def gradients(name: str, chosen: float, rejected: float, **constants: float) -> tuple[float, float]:
    """Of the loss by the log-ratios of both answers."""
    sides = [torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (chosen, rejected)]
    fixed: list[Tensor] = [torch.tensor([value], dtype=torch.float64) for value in (2.0, 4.0)]
    given = Pairs(sides[0], sides[1], fixed[0], fixed[1], sides[0] - 4)
    LOSSES[name](given, Constants(**{"beta": 0.5, **constants})).sum().backward()
    return tuple(0.0 if side.grad is None else side.grad.item() for side in sides)  # type: ignore[return-value]


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"discopop"}))
def test_at_the_reference_a_step_down_the_gradient_widens_the_margin(name: str):
    chosen, rejected = gradients(name, 0.0, 0.0)
    assert rejected - chosen > 0


def test_discopop_pulls_small_margins_back_as_published():
    # at 0: -1/2 * 1/2 from the logistic part, -1/2 from the exponential, and (1 - ln 2) / (4 * 0.05) from the change
    slope = -0.25 - 0.5 + (1 - LN2) / 0.2
    assert gradients("discopop", 0.0, 0.0) == pytest.approx((0.5 * slope, -0.5 * slope))
    assert gradients("discopop", 1.0, -1.0)[0] < 0 < slope


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(name: str):
    step = 1e-6
    for chosen, rejected in ((1.0, -2.0), (-0.7, 0.4)):
        found = gradients(name, chosen, rejected, label_smoothing=0.1)
        for index, (left, right) in enumerate(((step, 0.0), (0.0, step))):
            sides = [
                Pairs(
                    *(
                        torch.tensor([value], dtype=torch.float64)
                        for value in (chosen + sign * left, rejected + sign * right, 2.0, 4.0, chosen + sign * left - 4)
                    )
                )
                for sign in (1, -1)
            ]
            above, below = (loss(name, side, label_smoothing=0.1) for side in sides)
            assert found[index] == pytest.approx((above - below) / (2 * step), rel=1e-5, abs=1e-7)


def test_the_gradient_of_dpo_is_beta_times_the_misranking_probability():
    # arXiv:2305.18290, section 4
    assert gradients("sigmoid", 1.0, -2.0) == pytest.approx((-0.5 * sigma(-1.5), 0.5 * sigma(-1.5)))


def test_apo_down_pushes_good_answers_of_a_better_policy_down():
    chosen, rejected = gradients("apo_down", 6.0, -6.0)
    assert chosen > 0
    assert gradients("apo_zero", 6.0, -6.0)[0] < 0
    assert rejected > 0
