"""What every optimizer promises: it goes downhill, follows the learning rate, and goes on bit for bit."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.engines.training.optimizers.contract import AveragingOptimizer, Optimizer, ParameterGroup
from llmkit.testing.front import FrontContract

if TYPE_CHECKING:
    from torch import Tensor, nn

RATE = 0.01


class OptimizerContract(FrontContract):
    """Subclass it and set `name`."""

    kind = "optimizers"

    def build(self, model: "nn.Module") -> Optimizer:
        """The optimizer to test, over the weights of `model`."""
        weights = dict(model.named_parameters())
        groups = [
            ParameterGroup("embedding", [weights["0.weight"]], RATE, weight_decay=0.0),
            ParameterGroup("matrix", [weights["1.weight"]], RATE, weight_decay=0.1, learning_rate_ratio=0.5),
            ParameterGroup("vector", [weights["1.bias"]], RATE, weight_decay=0.0),
        ]
        return self.plugin().build(self.config(), groups)

    def test_the_loss_falls(self) -> None:
        model = _model()
        optimizer = self.build(model)
        before = float(_loss(model).detach())
        _train(model, optimizer, 20)
        assert float(_loss(model).detach()) < before

    def test_every_parameter_is_in_one_group(self) -> None:
        model = _model()
        found = [id(parameter) for group in self.build(model).param_groups for parameter in group["params"]]
        assert sorted(found) == sorted(id(parameter) for parameter in model.parameters())

    def test_groups_keep_their_share_of_the_learning_rate(self) -> None:
        model = _model()
        optimizer = self.build(model)
        for group in optimizer.param_groups:
            assert group["lr"] == RATE * group["learning_rate_ratio"]

    def test_no_learning_rate_no_change(self) -> None:
        import torch

        model = _model()
        before = _weights(model)
        _train(model, self.build(model), 3, rate=0.0)
        for weight, former in zip(model.parameters(), before, strict=True):
            assert torch.equal(weight, former), "a group's `lr` must be read at every step"

    def test_a_parameter_without_a_gradient_stays(self) -> None:
        import torch

        model = _model()
        bias = dict(model.named_parameters())["1.bias"]
        before = bias.detach().clone()
        optimizer = self.build(model)
        _loss(model).backward()
        bias.grad = None
        optimizer.step()
        assert torch.equal(bias, before)

    def test_gradients_are_forgotten(self) -> None:
        model = _model()
        optimizer = self.build(model)
        _loss(model).backward()
        optimizer.zero_grad()
        assert all(weight.grad is None or not weight.grad.any() for weight in model.parameters())

    def test_a_saved_state_goes_on_bit_for_bit(self, tmp_path: Path) -> None:
        import torch

        whole, first, second = _model(), _model(), _model()
        _train(whole, self.build(whole), 8)
        optimizer = self.build(first)
        _train(first, optimizer, 5)
        if isinstance(optimizer, AveragingOptimizer):
            optimizer.eval()
        torch.save(optimizer.state_dict(), tmp_path / "state.pt")
        second.load_state_dict(first.state_dict())
        resumed = self.build(second)
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        if isinstance(resumed, AveragingOptimizer):
            resumed.train()
        _train(second, resumed, 3, start=5)
        for weight, expected in zip(second.parameters(), whole.parameters(), strict=True):
            assert torch.equal(weight, expected)

    def test_an_average_comes_and_goes(self) -> None:
        import torch

        model = _model()
        optimizer = self.build(model)
        _train(model, optimizer, 5)
        if isinstance(optimizer, AveragingOptimizer):
            trained = _weights(model)
            optimizer.eval()
            assert not all(torch.equal(one, two) for one, two in zip(model.parameters(), trained, strict=True))
            optimizer.eval()
            optimizer.train()
            optimizer.train()
            assert all(torch.equal(one, two) for one, two in zip(model.parameters(), trained, strict=True))


def _model() -> Any:
    """An embedding and a layer; the same weights each time."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Embedding(7, 6), torch.nn.Linear(6, 3))


def _loss(model: Any, step: int = 0) -> "Tensor":
    import torch

    return (model(torch.arange(7).roll(step)) - torch.eye(7, 3)).square().mean()


def _train(model: Any, optimizer: Optimizer, steps: int, *, rate: float = RATE, start: int = 0) -> None:
    for step in range(start, start + steps):
        _loss(model, step).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * (step + 1) / (step + 2) * group["learning_rate_ratio"]
        optimizer.step()
        optimizer.zero_grad()


def _weights(model: Any) -> "list[Tensor]":
    return [parameter.detach().clone() for parameter in model.parameters()]
