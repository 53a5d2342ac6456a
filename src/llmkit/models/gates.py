"""Gated feed-forward layers, `down(silu(gate(x)) * up(x))`, with what is between the products in one pass."""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from llmkit.models.kernels import library

PARTS = ("gate_proj", "up_proj", "down_proj")

_known: dict[tuple[type[nn.Module], type[nn.Module]], bool] = {}


def prepare(model: nn.Module) -> None:
    """Give a model's gated layers a shorter way to the same numbers; others stay as they are."""
    for module in model.modules():
        if _is_gated(module):
            module.forward = MethodType(_forward, module)


def silu_gate(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`; `library.takes` says for which tensors.

    Source: arXiv:2002.05202, SwiGLU.
    """
    return _SiluGate.apply(gate, up)  # pyright: ignore[reportReturnType] - untyped in torch


class _SiluGate(torch.autograd.Function):
    """With s the logistic function of g, `silu(g) = g * s` has the slope `s * (1 + g * (1 - s))`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        gate, up = gate.contiguous(), up.contiguous()
        ctx.save_for_backward(gate, up)
        output = torch.empty_like(gate)
        library.call("gate_forward", gate.dtype, torch.get_num_threads(), gate.numel(), gate, up, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        gate, up = ctx.saved_tensors
        by_gate, by_up, threads = torch.empty_like(gate), torch.empty_like(up), torch.get_num_threads()
        library.call(
            "gate_backward", gate.dtype, threads, gate.numel(), gate, up, upstream.contiguous(), by_gate, by_up
        )
        return by_gate, by_up


def _forward(self: Any, x: Tensor) -> Tensor:
    gate, up = self.gate_proj(x), self.up_proj(x)
    return self.down_proj(silu_gate(gate, up) if library.takes(gate, up) else nn.functional.silu(gate) * up)


def _is_gated(module: Any) -> bool:
    """Whether a layer is of the plain form; each class is asked once, with numbers."""
    if not all(isinstance(getattr(module, name, None), nn.Module) for name in (*PARTS, "act_fn")):
        return False
    if not library.is_matrix(getattr(module.gate_proj, "weight", None)):
        return False
    kind = (type(module), type(module.act_fn))
    if kind not in _known:
        _known[kind] = _agrees(module)
    return _known[kind]


@torch.no_grad()
def _agrees(module: Any) -> bool:
    weight = module.gate_proj.weight
    probe = torch.linspace(-3, 4, 2 * weight.shape[1]).view(1, 2, -1).to(weight.dtype)
    with torch.random.fork_rng(devices=[]):
        found = []
        for run in (module, MethodType(_forward, module)):
            torch.manual_seed(0)  # an adapter may drop out
            try:
                found.append(run(probe))
            except (TypeError, RuntimeError):  # a layer that takes something else
                return False
    error = 1e-5 if weight.dtype == torch.float32 else 0.05
    return torch.allclose(*found, rtol=error, atol=error)
