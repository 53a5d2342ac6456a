"""Root-mean-square norms in one step forward and one backward, in the place of those that modeling code spells out."""

from types import MethodType
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from llmkit.models.kernels import library
from llmkit.models.norm_rotary import norm_rotate

_prepared: WeakSet[nn.Module] = WeakSet()
_known: dict[type[nn.Module], bool] = {}


def prepare(model: nn.Module) -> None:
    """Give a model's norms a shorter way to the same numbers; under autocast, keep what is between its layers in the
    type of autocast, as a model with such weights does.

    Norms of a form of their own stay as they are, and so do models without any other. It may be called again.
    """
    if model in _prepared:
        return
    found = False
    for module in model.modules():
        if _is_plain(module):
            module.forward = MethodType(_forward, module)
            found = True
    embedding = model.get_input_embeddings() if found else None  # type: ignore[operator] - a transformers model
    if isinstance(embedding, nn.Module) and embedding not in _prepared:
        embedding.register_forward_hook(to_autocast)
        _prepared.add(embedding)
    _prepared.add(model)


def rms_norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight * hidden / sqrt(mean(hidden^2) + eps)` over the last dimension, in float32, in the type of `hidden`.

    Source: arXiv:1910.07467, equation 4.
    """
    if hidden.device.type != "cpu":
        return F.rms_norm(hidden, weight.shape, weight.to(hidden.dtype), eps)
    if library.is_plain(weight) and library.takes(hidden):
        return norm_rotate(hidden, weight, eps, None)
    # Autocast would take the sum of squares in half the bits.
    with torch.autocast("cpu", enabled=False):
        return _RMSNorm.apply(hidden, weight, eps)  # pyright: ignore[reportReturnType] - untyped in torch


class _RMSNorm(torch.autograd.Function):
    """With n the normalized input and g the gradient of its product with the weight, the input's gradient is
    `(g - n * mean(g * n)) / rms`.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
        wide = hidden.float() if hidden.dtype != torch.float64 else hidden
        squares = torch.linalg.vecdot(wide, wide)
        scale = squares.div_(hidden.shape[-1]).add_(eps).rsqrt_().unsqueeze(-1)
        ctx.save_for_backward(hidden, weight, scale)
        normed = wide * scale if wide is hidden else wide.mul_(scale)
        return normed.mul_(weight).to(hidden.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        hidden, weight, scale = ctx.saved_tensors
        normed, by_product = hidden * scale, upstream.to(scale.dtype)
        by_weight = None
        if ctx.needs_input_grad[1]:
            by_weight = (by_product * normed).flatten(0, -2).sum(dim=0).to(weight.dtype)
        by_product = by_product * weight
        shared = torch.linalg.vecdot(by_product, normed).div_(hidden.shape[-1]).unsqueeze(-1)
        by_hidden = by_product.sub_(normed.mul_(shared)).mul_(scale).to(hidden.dtype)
        return by_hidden, by_weight, None


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    return rms_norm(hidden_states, self.weight, epsilon(self))


def to_autocast(module: nn.Module, inputs: Any, embedded: Tensor) -> Tensor:
    """The hook that `prepare` gives to the embedding."""
    kind = embedded.device.type
    return embedded.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else embedded


def epsilon(module: Any) -> float:
    """What a norm adds to the mean of squares; 0 where there is nothing."""
    return getattr(module, "variance_epsilon", None) or getattr(module, "eps", None) or 0.0


def is_known(module: Any) -> bool:
    """Whether `rms_norm` stands for a module, on the CPU, by its class; `prepare` has seen it."""
    return _known.get(type(module), False) and library.is_plain(module.weight)


@torch.no_grad()
def _is_plain(module: nn.Module) -> bool:
    """Whether it is a norm of the plain form; each class is asked once, with numbers."""
    kind = type(module)
    weight = getattr(module, "weight", None)
    if not kind.__name__.endswith("RMSNorm") or kind is nn.RMSNorm or not isinstance(weight, nn.Parameter):
        return False
    if set(dict(module.named_parameters())) != {"weight"} or weight.ndim != 1 or not epsilon(module):
        return False
    if kind not in _known:
        _known[kind] = _agrees(module, weight)
    return _known[kind]


def _agrees(module: nn.Module, weight: nn.Parameter) -> bool:
    probe = torch.linspace(-3, 4, 2 * len(weight), dtype=torch.float32, device=weight.device).view(1, 2, -1)
    shifted = nn.Parameter(torch.linspace(0.5, 2, len(weight), device=weight.device), requires_grad=False)
    module._parameters["weight"] = shifted
    try:
        # In the form that needs nothing compiled: who only samples may never compute a norm here.
        return torch.allclose(module(probe), _RMSNorm.apply(probe, shifted, epsilon(module)), rtol=1e-5, atol=1e-6)  # pyright: ignore[reportArgumentType] - untyped in torch
    except (TypeError, RuntimeError):  # a norm that takes something else besides
        return False
    finally:
        module._parameters["weight"] = weight
