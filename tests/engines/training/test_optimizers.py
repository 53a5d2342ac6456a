"""Optimizers against numbers that can be had by hand; what they all promise is in tests/contracts."""

import math
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from llmkit import plugins
from llmkit.engines.training.optimizers.contract import Optimizer, ParameterGroup, Role
from llmkit.errors import PluginError


def build(name: str, *groups: ParameterGroup, **options: Any) -> Optimizer:
    plugin = plugins.load("optimizers", name)
    return plugin.build(plugin.Config(**options), groups)


def group(parameter: nn.Parameter, role: Role = "vector", rate: float = 0.1, decay: float = 0.0) -> ParameterGroup:
    return ParameterGroup(role, [parameter], rate, decay)


def step(optimizer: Optimizer, parameter: nn.Parameter, gradient: list[float]) -> list[float]:
    parameter.grad = torch.tensor(gradient)
    optimizer.step()
    return parameter.tolist()


def test_sgd_with_momentum():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = build("sgd", group(weight), momentum=0.5)
    assert step(optimizer, weight, [2.0]) == pytest.approx([0.8])
    # the velocity is 0.5 * 2 + 2
    assert step(optimizer, weight, [2.0]) == pytest.approx([0.5])


def test_schedule_free_averages_its_steps():
    # Gradients of one sign move z by the rate; with equal weights x is the mean of z.
    weight = nn.Parameter(torch.tensor([0.0]))
    optimizer = build("schedule_free", group(weight), beta=0.5, beta2=1e-12, eps=1e-30)
    assert step(optimizer, weight, [1.0]) == pytest.approx([-0.1])  # z = x = y
    assert step(optimizer, weight, [4.0]) == pytest.approx([-0.175])  # z -0.2, x -0.15
    assert step(optimizer, weight, [9.0]) == pytest.approx([-0.25])  # z -0.3, x -0.2
    optimizer.eval()  # type: ignore[attr-defined] - it averages
    assert weight.tolist() == pytest.approx([-0.2])


def test_schedule_free_weighs_steps_by_their_squared_rate():
    weight = nn.Parameter(torch.tensor([0.0]))
    optimizer = build("schedule_free", group(weight), beta=0.5, beta2=1e-12, eps=1e-30)
    step(optimizer, weight, [1.0])
    optimizer.param_groups[0]["lr"] = 0.2
    step(optimizer, weight, [1.0])
    optimizer.eval()  # type: ignore[attr-defined] - it averages
    # z is -0.1 and -0.3, with weights 0.01 and 0.04
    assert weight.tolist() == pytest.approx([0.2 * -0.1 + 0.8 * -0.3])


def test_schedule_free_decays_at_the_weights_in_training():
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = build("schedule_free", group(weight, decay=0.5), beta2=1e-12, eps=1e-30)
    assert step(optimizer, weight, [1.0]) == pytest.approx([1 - 0.1 - 0.1 * 0.5])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.floats(0.1, 0.9), st.floats(0.5, 0.99))
def test_schedule_free_is_its_three_sequences(steps: int, beta: float, beta2: float):
    torch.manual_seed(steps)
    start, gradients = torch.randn(4, dtype=torch.float64), torch.randn(steps, 4, dtype=torch.float64)
    weight = nn.Parameter(start.clone())
    optimizer = build("schedule_free", group(weight, decay=0.1), beta=beta, beta2=beta2)
    x, z, moment, total = start.clone(), start.clone(), torch.zeros_like(start), 0.0
    for number, gradient in enumerate(gradients, start=1):
        y = (1 - beta) * z + beta * x
        weight.grad = gradient.clone()
        optimizer.step()
        moment = beta2 * moment + (1 - beta2) * gradient**2
        rate = 0.1 * math.sqrt(1 - beta2**number)
        total += rate**2
        z = z - rate * gradient / (moment.sqrt() + 1e-8) - rate * 0.1 * y
        x = (1 - rate**2 / total) * x + rate**2 / total * z
    torch.testing.assert_close(weight.detach(), (1 - beta) * z + beta * x)
    optimizer.eval()  # type: ignore[attr-defined] - it averages
    torch.testing.assert_close(weight.detach(), x)


@pytest.mark.parametrize("shape", [(6, 6), (4, 12), (12, 4)])
def test_muon_moves_in_every_direction_alike(shape: tuple[int, int]):
    torch.manual_seed(0)
    weight = nn.Parameter(torch.zeros(shape))
    optimizer = build("muon", group(weight, "matrix", rate=1.0))
    weight.grad = torch.randn(shape)
    optimizer.step()
    # Singular values of the update lie about 1 (Jordan: 0.7 to 1.2), before the scale 0.2 sqrt(max(shape)).
    values = torch.linalg.svdvals(weight.detach()) / (0.2 * math.sqrt(max(shape)))
    assert float(values.min()) > 0.6
    assert float(values.max()) < 1.3
    assert float((weight.detach() * weight.grad).sum()) < 0


def test_muon_leaves_all_but_hidden_matrices_to_adamw():
    matrix, experts, head, norm = (nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (2, 2, 2), (3, 2), (2,)))
    optimizer = build(
        "muon",
        ParameterGroup("matrix", [matrix, experts], 0.1, 0.0),
        group(head, "output"),
        group(norm),
        adamw_learning_rate_ratio=0.5,
        eps=1e-12,
    )
    for parameter in (matrix, experts, head, norm):
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    # The first step of AdamW goes by the learning rate.
    for parameter in (experts, head, norm):
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, 0.95))
    assert sorted(group["learning_rate_ratio"] for group in optimizer.param_groups) == [0.5, 0.5, 0.5, 1.0]
    assert set(optimizer.state_dict()) == {"Muon", "AdamW"}


def test_adafactor_keeps_a_row_and_a_column_for_a_matrix():
    weight = nn.Parameter(torch.ones(5, 7))
    optimizer = build("adafactor", group(weight, "matrix"))
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    (state,) = optimizer.state_dict()["state"].values()
    assert sum(value.numel() for value in state.values()) == 5 + 7 + 1


def test_8_bits_without_bitsandbytes_say_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(PluginError, match=r"pip install 'llmkit\[quantization\]', or choose"):
        build("adamw_8bit", group(nn.Parameter(torch.ones(1))))
