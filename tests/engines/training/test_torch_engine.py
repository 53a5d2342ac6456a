from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmkit.config.schema import OptimConfig
from llmkit.engines.training.torch_engine import TorchEngine, parameter_groups
from llmkit.errors import CheckpointError, TrainingError
from llmkit.models.policy import Policy


class Toy(nn.Module):
    """An embedding, a matrix, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(self.embedding(ids)))


def engine(**settings: Any) -> TorchEngine:
    torch.manual_seed(0)
    policy = Policy(Toy(), torch.device("cpu"), torch.float32)
    return TorchEngine(policy, OptimConfig.model_validate({"learning_rate": 0.1, **settings}), total_steps=10)


def train(trainer: TorchEngine, steps: int) -> list[torch.Tensor]:
    for step in range(steps):
        trainer.backward(
            trainer.policy.model(torch.tensor([step % 5, 2])).square().mean() + trainer.policy.model.norm.bias.sum()
        )
        trainer.step()
    return [parameter.detach().clone() for parameter in trainer.policy.model.parameters()]


def test_only_matrices_decay():
    decayed, rest = parameter_groups(Toy(), 0.1)
    assert [tuple(parameter.shape) for parameter in decayed["params"]] == [(3, 4)]
    assert [tuple(parameter.shape) for parameter in rest["params"]] == [(5, 4), (3,), (3,), (3,)]
    assert (decayed["weight_decay"], rest["weight_decay"]) == (0.1, 0.0)


def test_frozen_parameters_are_left_out():
    model = Toy().requires_grad_(False)
    model.linear.weight.requires_grad_(True)
    (group,) = parameter_groups(model, 0.1)
    assert len(group["params"]) == 1


def test_one_step_is_adamw_by_hand():
    # The first step of Adam moves every weight by the learning rate, against the sign of its gradient.
    trainer = engine(max_grad_norm=0, eps=1e-12)
    before = trainer.policy.model.norm.bias.detach().clone()
    trainer.backward((trainer.policy.model.norm.bias * torch.tensor([1.0, -2.0, 3.0])).sum())
    report = trainer.step()
    moved = trainer.policy.model.norm.bias.detach() - before
    torch.testing.assert_close(moved, torch.tensor([-0.1, 0.1, -0.1]))
    assert report == {"grad_norm": pytest.approx(14**0.5), "learning_rate": 0.1}


def test_gradients_are_cut_to_the_norm():
    trainer = engine(max_grad_norm=0.5)
    trainer.backward((trainer.policy.model.norm.bias * 10).sum())
    assert trainer.step()["grad_norm"] == pytest.approx(300**0.5)


def test_a_saved_engine_goes_on_bit_for_bit(tmp_path: Path):
    whole = train(engine(weight_decay=0.1), 6)
    first = engine(weight_decay=0.1)
    train(first, 3)
    first.save(tmp_path)
    second = engine(weight_decay=0.1)
    second.policy.model.load_state_dict(first.policy.model.state_dict())
    torch.manual_seed(99)
    second.load(tmp_path)
    for step in range(3, 6):
        second.backward(
            second.policy.model(torch.tensor([step % 5, 2])).square().mean() + second.policy.model.norm.bias.sum()
        )
        second.step()
    for expected, found in zip(whole, second.policy.model.parameters(), strict=True):
        assert torch.equal(found, expected)


def test_a_loss_that_is_no_number_stops_before_anything_changes():
    trainer = engine()
    before = [parameter.detach().clone() for parameter in trainer.policy.model.parameters()]
    with pytest.raises(TrainingError, match="the loss is nan at optimizer step 1"):
        trainer.backward(torch.tensor(float("nan"), requires_grad=True))
    # The root has the value 0 there and no finite slope.
    trainer.backward(trainer.policy.model.norm.bias.abs().sqrt().sum())
    with pytest.raises(TrainingError, match="the gradient is"):
        trainer.step()
    for expected, found in zip(before, trainer.policy.model.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04torn"])
def test_a_damaged_state_names_its_file(tmp_path: Path, content: bytes):
    (tmp_path / "optimizer.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
        engine().load(tmp_path)
