import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.algorithms.dpo import dpo_loss
from llmkit.algorithms.preference import LOSSES, Constants, Pairs


def pairs(chosen: list[float], rejected: list[float]) -> Pairs:
    ones = torch.ones(len(chosen), dtype=torch.float64)
    first, second = torch.tensor(chosen, dtype=torch.float64), torch.tensor(rejected, dtype=torch.float64)
    return Pairs(first, second, 2 * ones, 5 * ones, first - 7)


def test_one_pair_by_hand():
    # implicit rewards 0.5 * 1 and 0.5 * -2, margin 1.5; -ln sigmoid(1.5) = 0.2014133
    loss, metrics = dpo_loss(pairs([1.0], [-2.0]), {"sigmoid": 1.0}, Constants(0.5))
    assert loss.tolist() == [pytest.approx(0.2014133, abs=1e-7)]
    assert {name: value.item() for name, value in metrics.items()} == {
        "rewards_chosen": 0.5, "rewards_rejected": -1.0, "rewards_margin": 1.5, "rewards_accuracy": 1.0,
    }  # fmt: skip


def test_several_losses_add_up_with_their_weights_and_are_told_apart():
    # ln 2 of an untrained policy, and 7 nats over 2 tokens at weight 0.2
    loss, metrics = dpo_loss(pairs([0.0], [0.0]), {"sigmoid": 1.0, "sft": 0.2}, Constants(0.5))
    assert loss.item() == pytest.approx(math.log(2) + 0.2 * 3.5)
    assert metrics["loss_sigmoid"].item() == pytest.approx(math.log(2))
    assert metrics["loss_sft"].item() == 3.5


def test_an_unknown_loss_is_refused():
    with pytest.raises(ValueError, match=r"no preference loss named cubic; there are: sigmoid, "):
        dpo_loss(pairs([0.0], [0.0]), {"cubic": 1.0}, Constants(0.1))


@settings(deadline=None)
@given(st.data(), st.sampled_from(sorted(LOSSES)))
def test_each_pair_has_its_loss_whatever_stands_beside_it(data: st.DataObject, name: str):
    values = st.lists(st.floats(-20, 20), min_size=4, max_size=4)
    chosen, rejected = data.draw(values), data.draw(values)
    constants = Constants(0.3, label_smoothing=0.1, mean_reward=0.7)
    together, _ = dpo_loss(pairs(chosen, rejected), {name: 1.0}, constants)
    alone = [
        dpo_loss(pairs([one], [two]), {name: 1.0}, constants)[0] for one, two in zip(chosen, rejected, strict=True)
    ]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-14, atol=1e-14)
