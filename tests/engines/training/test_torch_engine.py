from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from llmkit.engines.training.parameter_groups import parameter_groups
from llmkit.engines.training.torch_engine import TorchEngine
from llmkit.errors import CheckpointError, ConfigError, TrainingError
from llmkit.models.policy import Policy
from llmkit.models.scalars import read_scalars
from llmkit.testing.settings import optim
from llmkit.types import Source


class Toy(nn.Module):
    """An embedding, a matrix, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.linear = nn.Linear(4, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.norm(self.linear(self.embedding(ids)))


class WithHead(Toy):
    """It says which layer makes its logits."""

    def get_output_embeddings(self) -> nn.Module:
        return self.linear


def engine(optimizer: dict[str, Any] | None = None, **settings: Any) -> TorchEngine:
    torch.manual_seed(0)
    policy = Policy(Toy(), torch.device("cpu"), torch.float32)
    return TorchEngine(policy, optim(optimizer, **{"learning_rate": 0.1, **settings}), total_steps=10)


def train(trainer: TorchEngine, steps: int, start: int = 0) -> list[torch.Tensor]:
    for step in range(start, start + steps):
        trainer.backward(
            trainer.policy.model(torch.tensor([step % 5, 2])).square().mean() + trainer.policy.model.norm.bias.sum()
        )
        trainer.step()
    return [parameter.detach().clone() for parameter in trainer.policy.model.parameters()]


def test_only_matrices_decay():
    matrix, embedding, vector = parameter_groups(Toy(), optim(weight_decay=0.1))
    assert [tuple(parameter.shape) for parameter in matrix.parameters] == [(3, 4)]
    assert [tuple(parameter.shape) for parameter in embedding.parameters] == [(5, 4)]
    assert [tuple(parameter.shape) for parameter in vector.parameters] == [(3,), (3,), (3,)]
    assert [group.role for group in (matrix, embedding, vector)] == ["matrix", "embedding", "vector"]
    assert [group.weight_decay for group in (matrix, embedding, vector)] == [0.1, 0.0, 0.0]


def test_the_output_head_is_no_hidden_matrix():
    roles = {group.role: group.weight_decay for group in parameter_groups(WithHead(), optim(weight_decay=0.1))}
    assert roles == {"output": 0.1, "embedding": 0.0, "vector": 0.0}


def test_a_head_that_shares_the_embedding_is_an_embedding():
    model = WithHead()
    model.linear.weight = model.embedding.weight
    assert {group.role for group in parameter_groups(model, optim())} == {"embedding", "vector"}


def test_frozen_parameters_are_left_out():
    model = Toy().requires_grad_(False)
    model.linear.weight.requires_grad_(True)
    (group,) = parameter_groups(model, optim())
    assert len(group.parameters) == 1


def test_one_step_is_adamw_by_hand():
    # The first step of Adam moves every weight by the learning rate, against the sign of its gradient.
    trainer = engine({"name": "adamw", "eps": 1e-12}, max_grad_norm=0)
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


def resume(first: TorchEngine, directory: Path, **settings: Any) -> TorchEngine:
    """Another engine that goes on from a checkpoint of the first, whose model it gets."""
    with first.checkpoint_weights():
        held = {name: value.clone() for name, value in first.policy.model.state_dict().items()}
        first.save(directory)
    second = engine(**settings)
    second.policy.model.load_state_dict(held)
    torch.manual_seed(99)
    second.load(directory)
    return second


@pytest.mark.parametrize("name", ["adamw", "muon", "sgd", "adafactor", "schedule_free"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_saved_engine_goes_on_bit_for_bit(tmp_path: Path, name: str, ema_decay: float | None):
    if name == "schedule_free":
        ema_decay = None
    settings = {"optimizer": {"name": name}, "weight_decay": 0.1, "warmup_steps": 2, "ema_decay": ema_decay}
    uninterrupted = engine(**settings)
    whole = train(uninterrupted, 6)
    first = engine(**settings)
    train(first, 3)
    second = resume(first, tmp_path, **settings)
    for expected, found in zip(whole, train(second, 3, start=3), strict=True):
        assert torch.equal(found, expected)
    with uninterrupted.evaluation_weights(), second.evaluation_weights():
        for expected, found in zip(
            uninterrupted.policy.model.parameters(), second.policy.model.parameters(), strict=True
        ):
            assert torch.equal(found, expected)


def test_a_state_of_another_optimizer_is_refused(tmp_path: Path):
    engine().save(tmp_path)
    with pytest.raises(CheckpointError, match=r"optim\.optimizer=adamw, and this run has optim\.optimizer=sgd"):
        engine({"name": "sgd"}).load(tmp_path)


def test_saving_leaves_the_weights_in_training_alone(tmp_path: Path):
    whole = train(engine({"name": "schedule_free"}), 4)
    trainer = engine({"name": "schedule_free"})
    train(trainer, 2)
    with trainer.checkpoint_weights():
        trainer.save(tmp_path)
    for expected, found in zip(whole, train(trainer, 2, start=2), strict=True):
        assert torch.equal(found, expected)


def test_the_average_of_the_weights_by_hand():
    # shares kept in steps 1 and 2: 1/10 and 2/11
    trainer = engine(ema_decay=0.99)
    bias = trainer.policy.model.norm.bias
    start = bias.detach().clone()
    first, second = (train(trainer, 1, start=step)[-1] for step in range(2))
    with trainer.evaluation_weights() as are_others:
        assert are_others
        expected = (start * 0.1 + first * 0.9) * 2 / 11 + second * 9 / 11
        torch.testing.assert_close(bias.detach(), expected)
    assert torch.equal(bias, second)


def test_without_an_average_the_weights_to_measure_are_those_in_training():
    trainer = engine()
    with trainer.evaluation_weights() as are_others:
        assert not are_others


def test_two_averages_at_once_are_refused():
    with pytest.raises(ConfigError, match=r"optim\.ema_decay=0\.9: optim\.optimizer=schedule_free averages"):
        engine({"name": "schedule_free"}, ema_decay=0.9)


ROWS = [Source("rows.jsonl", line) for line in (3, 8)]


def bad_gradient(trainer: TorchEngine) -> torch.Tensor:
    """The root has the value 0 there and no finite slope."""
    bias = trainer.policy.model.norm.bias
    return (bias - bias.detach()).abs().sqrt().sum()


def test_a_bad_loss_names_its_rows():
    trainer = engine()
    trainer.backward(torch.tensor(float("inf"), requires_grad=True), ROWS)
    trainer.backward(torch.tensor(float("nan"), requires_grad=True), [Source("other.jsonl", 1)])
    with pytest.raises(TrainingError, match=r"is inf .* rows\.jsonl:3, rows\.jsonl:8; this step has changed nothing"):
        trainer.step()


def test_a_bad_gradient_names_the_rows_of_its_micro_batch_and_no_others():
    for place in range(3):
        trainer = engine()
        for number in range(3):
            if number == place:
                trainer.backward(bad_gradient(trainer), ROWS)
            else:
                trainer.backward(trainer.policy.model.norm.bias.sum(), [Source("other.jsonl", 1)])
        with pytest.raises(TrainingError, match=r"the gradient is nan at .* rows rows\.jsonl:3, rows\.jsonl:8;"):
            trainer.step()


def test_numbers_are_read_once_a_step(monkeypatch: pytest.MonkeyPatch):
    num_reads = 0

    def count(values: Sequence[torch.Tensor]) -> list[float]:
        nonlocal num_reads
        num_reads += 1
        return read_scalars(values)

    monkeypatch.setattr("llmkit.engines.training.faults.read_scalars", count)
    trainer = engine()
    for _ in range(3):
        trainer.backward(trainer.policy.model.norm.bias.sum())
    trainer.step()
    assert num_reads == 1


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_bad_step_is_left_out_and_counted_when_asked(what: str):
    trainer = engine(on_nonfinite="skip", max_skipped_steps=1, ema_decay=0.5)
    (before, *_) = train(trainer, 1)
    for _ in range(2):  # the second micro-batch is left out with the first
        if what == "loss":
            trainer.backward(torch.tensor(float("nan"), requires_grad=True), ROWS)
        else:
            trainer.backward(bad_gradient(trainer), ROWS)
    assert trainer.step()["learning_rate"] == pytest.approx(0.09)
    assert torch.equal(next(iter(trainer.policy.model.parameters())), before)
    assert (trainer.num_updates, trainer.num_skipped) == (2, 1)
    (reason,) = trainer.skipped
    assert f"the {what} is nan at optimizer step 2" in reason
    train(trainer, 1)
    assert len(trainer.skipped) == 1
    trainer.backward(torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match=r"one more than optim\.max_skipped_steps=1"):
        trainer.step()


def test_a_loss_that_is_no_number_stops_before_anything_changes():
    trainer = engine()
    before = [parameter.detach().clone() for parameter in trainer.policy.model.parameters()]
    trainer.backward(torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(TrainingError, match="the loss is nan at optimizer step 1"):
        trainer.step()
    # The root has the value 0 there and no finite slope.
    trainer.backward(trainer.policy.model.norm.bias.abs().sqrt().sum())
    with pytest.raises(TrainingError, match="the gradient is"):
        trainer.step()
    for expected, found in zip(before, trainer.policy.model.parameters(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("content", [b"", b"not a state", b'{"state": {}'])
def test_a_damaged_state_names_its_file(tmp_path: Path, content: bytes):
    (tmp_path / "optimizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"optimizer\.json"):
        engine().load(tmp_path)
