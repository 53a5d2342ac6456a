"""Attention layers whose queries and keys are normalized and turned in one pass over each."""

from collections.abc import Mapping
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.models import norms
from llmkit.models.kernels import library
from llmkit.models.norm_rotary import norm_rotate
from llmkit.models.packed import ATTENTION, AttentionPlan, packed_attention

PARTS = ("q_proj", "k_proj", "v_proj", "o_proj")


def prepare(model: nn.Module) -> None:
    """Give a model's attention layers a shorter way to the same numbers, where they are of the common form."""
    if getattr(getattr(model, "config", None), "_attn_implementation", None) != ATTENTION:
        return
    for module in model.modules():
        if type(module).__name__.endswith("Attention") and _has_parts(module):
            settings = _settings(module)
            if settings is not None:
                module.forward = MethodType(partial(_forward, settings=settings), module)


def _forward(
    self: Any,
    hidden_states: Tensor,
    position_embeddings: tuple[Tensor, Tensor],
    attention_mask: Tensor | None = None,
    past_key_values: Any = None,
    *,
    settings: Mapping[str, Any],
    only: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    if past_key_values is not None:
        return type(self).forward(
            self, hidden_states, position_embeddings, attention_mask, past_key_values=past_key_values, **kwargs
        )
    shape = (*hidden_states.shape[:-1], -1, self.head_dim)
    query, key = (
        _positioned(projection(hidden_states).view(shape), norm, position_embeddings)
        for projection, norm in (
            (self.q_proj, getattr(self, "q_norm", None)),
            (self.k_proj, getattr(self, "k_norm", None)),
        )
    )
    value = self.v_proj(hidden_states).view(shape).transpose(1, 2)
    dropout = self.attention_dropout if self.training else 0.0
    output, weights = packed_attention(self, query, key, value, attention_mask, dropout=dropout, **settings, **kwargs)
    output = output.flatten(2)
    return self.o_proj(output if only is None else output.index_select(1, only)), weights


def _positioned(states: Tensor, norm: Any, angles: tuple[Tensor, Tensor]) -> Tensor:
    """[B, H, T, D] of [B, T, H, D]."""
    if library.takes(states) and (norm is None or norms.is_known(norm)):
        cosines, sines = (one.expand(len(states), -1, -1).flatten(0, 1) for one in angles)
        weight, eps = (None, 0.0) if norm is None else (norm.weight, norms.epsilon(norm))
        return norm_rotate(states, weight, eps, (cosines, sines)).transpose(1, 2)
    states = (states if norm is None else norm(states)).transpose(1, 2)
    cosines, sines = (one.unsqueeze(1) for one in angles)
    one, other = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-other, one], dim=-1) * sines


def _has_parts(module: Any) -> bool:
    return (
        all(isinstance(getattr(module, name, None), nn.Module) for name in PARTS)
        and isinstance(getattr(module, "head_dim", None), int)
        and hasattr(module, "attention_dropout")
        and library.is_matrix(getattr(module.q_proj, "weight", None))
    )


class _Recorder(AttentionPlan):
    """Takes down what a layer asks of its attention."""

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {}

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, **options: Any
    ) -> Tensor:
        """Something that depends on all of it."""
        self.settings = {"scaling": scaling, **{name: one for name, one in options.items() if one is not None}}
        groups = query.shape[1] // key.shape[1]
        return (query * key.repeat_interleave(groups, 1) + value.repeat_interleave(groups, 1)).transpose(1, 2)


@torch.no_grad()
def _settings(module: Any) -> Mapping[str, Any] | None:
    """What a layer asks of its attention; None where it is not of the common form, which numbers show."""
    weight = module.q_proj.weight
    hidden = torch.linspace(-3, 4, 3 * weight.shape[1]).view(1, 3, -1).to(weight.dtype)
    angles = torch.linspace(0, 2, 3 * (module.head_dim // 2)).view(1, 3, -1).repeat(1, 1, 2)
    positions = (angles.cos().to(weight.dtype), angles.sin().to(weight.dtype))
    found, recorders = [], [_Recorder(), _Recorder()]
    with torch.random.fork_rng(devices=[]):
        for forward, recorder in zip((type(module).forward, partial(_forward, settings={})), recorders, strict=True):
            torch.manual_seed(0)  # an adapter may drop out
            try:
                found.append(forward(module, hidden, positions, None, layout=recorder)[0])
            except (TypeError, RuntimeError):  # a layer that takes something else
                return None
    asked = recorders[0].settings
    error = 1e-5 if weight.dtype == torch.float32 else 0.05
    known = asked and asked.keys() <= {"scaling", "sliding_window"}
    return asked if known and torch.allclose(*found, rtol=error, atol=error) else None
