import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.aggregate import step_total, token_scales
from llmkit.algorithms.policy_loss import Surrogate, surrogate_loss

EVERY = [
    Surrogate(), Surrogate(dual_clip=3.0), Surrogate(ratio="sequence"), Surrogate("cispo"), Surrogate("sapo"),
    Surrogate("reinforce"), Surrogate("cispo", ratio="sequence"), Surrogate("sapo", ratio="sequence"),
]  # fmt: skip


def one(ratio: float, advantage: float, surrogate: Surrogate) -> tuple[float, float, float]:
    """Loss of one token, its gradient by the log-probability, and whether a bound took hold."""
    old = torch.tensor([-1.0], dtype=torch.float64)
    new = (old + math.log(ratio)).requires_grad_()
    loss, bounded = surrogate_loss(
        new, old, torch.tensor([advantage], dtype=torch.float64), torch.zeros(1, dtype=torch.int64), surrogate
    )
    loss.sum().backward()
    assert new.grad is not None
    return loss.item(), new.grad.item(), bounded.item()


@pytest.mark.parametrize("surrogate", EVERY, ids=str)
def test_on_policy_the_gradient_is_minus_the_advantage_over_the_number_of_tokens(surrogate: Surrogate):
    # one sequence, so that a ratio of sequences is shared by tokens of one advantage
    logprobs = torch.tensor([-1.0, -2.0, -0.5, -1.5], requires_grad=True)
    ids = torch.zeros(4, dtype=torch.int64)
    losses, bounded = surrogate_loss(logprobs, logprobs.detach(), torch.full((4,), -2.0), ids, surrogate)
    (losses * token_scales(torch.ones(4), ids, "token", 4.0)).sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, torch.full((4,), 2.0 / 4))
    assert bounded.sum() == 0


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (1.5, 1.0, -1.2, 0.0),  # too likely already, and good: held at 1 + 0.2, no gradient
        (0.5, 1.0, -0.5, -0.5),  # less likely than before, and good: pulled back
        (0.5, -1.0, 0.9, 0.0),  # already rarer than 1 - 0.1, and bad: held, no gradient
        (1.5, -1.0, 1.5, 1.5),  # more likely, and bad: pushed down
    ],
)
def test_clipping_in_all_four_corners(ratio: float, advantage: float, loss: float, gradient: float):
    found = one(ratio, advantage, Surrogate(clip_low=0.1, clip_high=0.2))
    assert found == pytest.approx((loss, gradient, float(gradient == 0.0)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (5.0, -2.0, 6.0, 0.0),  # 5 * 2 is beyond 3 * 2: held, no gradient
        (2.0, -2.0, 4.0, 4.0),  # still below
        (5.0, 2.0, -2.4, 0.0),  # good tokens know the ordinary clip alone
        (0.5, -2.0, 1.6, 0.0),
    ],
)
def test_the_dual_clip_bounds_bad_tokens_alone(ratio: float, advantage: float, loss: float, gradient: float):
    found = one(ratio, advantage, Surrogate(dual_clip=3.0))
    assert found == pytest.approx((loss, gradient, float(gradient == 0.0)))


@pytest.mark.parametrize(
    ("ratio", "advantage", "gradient", "bounded"),
    [(4.0, 1.0, -1.5, 1.0), (4.0, -1.0, 1.5, 1.0), (0.1, 1.0, -0.1, 0.0), (1.2, -2.0, 2.4, 0.0)],
)
def test_cispo_bounds_weights_and_keeps_every_gradient(ratio: float, advantage: float, gradient: float, bounded: float):
    loss, found, flag = one(ratio, advantage, Surrogate("cispo", clip_low=1.0, clip_high=0.5))
    assert (found, flag) == (pytest.approx(gradient), bounded)
    assert loss == pytest.approx(gradient * (-1 + math.log(ratio)))  # weight times -A times the log-probability


@pytest.mark.parametrize(("ratio", "advantage", "temperature"), [(2.0, 1.5, 1.0), (2.0, -1.5, 1.05), (0.5, 1.0, 1.0)])
def test_sapo_by_hand(ratio: float, advantage: float, temperature: float):
    gate = 1 / (1 + math.exp(-temperature * (ratio - 1)))
    loss, gradient, _ = one(ratio, advantage, Surrogate("sapo"))
    assert loss == pytest.approx(-4 / temperature * gate * advantage)
    assert gradient == pytest.approx(-4 * gate * (1 - gate) * ratio * advantage)


def test_reinforce_knows_no_ratio():
    assert one(3.0, 2.0, Surrogate("reinforce")) == pytest.approx((-2.0 * (-1 + math.log(3.0)), -2.0, 0.0))


def test_a_sequence_ratio_is_the_geometric_mean_and_its_gradient_is_shared():
    # ratios 4 and 1/4 make 1, and 9 alone makes 9, which is clipped for a good answer
    old = torch.zeros(3, dtype=torch.float64)
    new = torch.tensor([4.0, 0.25, 9.0], dtype=torch.float64).log().requires_grad_()
    losses, bounded = surrogate_loss(new, old, torch.ones(3), torch.tensor([0, 0, 1]), Surrogate(ratio="sequence"))
    torch.testing.assert_close(losses.detach(), torch.tensor([-1.0, -1.0, -1.2], dtype=torch.float64))
    assert bounded.tolist() == [0.0, 0.0, 1.0]
    losses.sum().backward()
    assert new.grad is not None
    torch.testing.assert_close(new.grad, torch.tensor([-1.0, -1.0, 0.0], dtype=torch.float64))


@pytest.mark.parametrize("surrogate", [Surrogate("cubic"), Surrogate(ratio="word")])
def test_what_is_no_choice_is_refused(surrogate: Surrogate):
    with pytest.raises(ValueError, match=r"'cubic'; there are: clip, cispo, sapo, reinforce|'word'"):
        one(1.0, 1.0, surrogate)


@settings(deadline=None)
@given(st.data(), st.sampled_from(EVERY), st.sampled_from(["token", "sequence", "constant"]))
def test_any_division_into_whole_sequences_adds_up_to_the_step(data: st.DataObject, surrogate: Surrogate, average: str):
    lengths = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=5))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 1000)))
    sequences = [torch.randn(length, 3, generator=generator, dtype=torch.float64) for length in lengths]
    total = step_total(average, num_tokens=sum(lengths), num_sequences=len(lengths), length=4)

    def loss(part: list[torch.Tensor]) -> torch.Tensor:
        ids = torch.cat([torch.full((len(sequence),), index) for index, sequence in enumerate(part)])
        new, old, advantages = torch.cat(part).unbind(1)
        losses, _ = surrogate_loss(new, old, advantages, ids, surrogate)
        return (losses * token_scales(torch.ones_like(losses), ids, average, total)).sum()

    order = data.draw(st.permutations(sequences))
    cut = data.draw(st.integers(1, len(order) - 1))
    torch.testing.assert_close(loss(order[:cut]) + loss(order[cut:]), loss(sequences), rtol=1e-12, atol=1e-12)
