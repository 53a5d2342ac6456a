"""Saved tensors that go to another place and come back."""

import torch
from torch import nn

from llmkit.models.offloading import offload_activations


def gradients(model: nn.Module, context: offload_activations | None) -> list[torch.Tensor]:
    model.zero_grad()
    hidden = torch.linspace(-1, 1, 64 * 32).view(64, 32)
    if context is None:
        loss = model(hidden).square().sum()
    else:
        with context:
            loss = model(hidden).square().sum()
    loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def test_gradients_are_the_same_bit_for_bit():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32))
    context = offload_activations(least_bytes=1, devices=("cpu",))
    moved = gradients(model, context)
    for one, other in zip(moved, gradients(model, None), strict=True):
        assert torch.equal(one, other)
    # Inputs of both layers, of the activation and of the square: four times 64 * 32 floats, and no weight.
    assert context.moved_bytes == 4 * 64 * 32 * 4


def test_what_is_small_or_on_the_host_stays():
    model = nn.Sequential(nn.Linear(32, 32))
    for context in (offload_activations(least_bytes=1 << 20, devices=("cpu",)), offload_activations(least_bytes=1)):
        gradients(model, context)
        assert context.moved_bytes == 0
