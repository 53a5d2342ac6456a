"""LoRA whose first update is taken out of the base weights: between the form that trains and the form on disk.

With W the base weight, s the scale, and B0 A0 the first update, the model trains with W - s B0 A0 + s B A. On disk that
is W + s [B, -B0] [A; A0], a plain LoRA of twice the rank for W.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

A, B = ".lora_A.weight", ".lora_B.weight"


def copy_factors(model: Any) -> dict[str, Tensor]:
    """Copies of both matrices of every adapted module, by their names in a checkpoint."""
    return {
        f"{name}{suffix}": factor.detach().clone()
        for name, layer in _layers(model)
        for suffix, factor in ((A, layer.lora_A["default"].weight), (B, layer.lora_B["default"].weight))
    }


def as_plain_lora(state: Mapping[str, Tensor], first: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The trained update less the first one, as one LoRA."""
    plain = dict(state)
    for name, initial in first.items():
        trained = state[name].detach()
        initial = initial.to(trained)
        if name.endswith(A):
            plain[name] = torch.cat([trained, initial], dim=0)
        else:
            plain[name] = torch.cat([trained, -initial], dim=1)
    return plain


def without_first(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inverse: the trained matrices, and the first ones."""
    trained, first = dict(state), {}
    for name, both in state.items():
        if name.endswith(A):
            trained[name], first[name] = both.chunk(2, dim=0)
        elif name.endswith(B):
            trained[name], negative = both.chunk(2, dim=1)
            first[name] = -negative
    return trained, first


def doubled(config: Any) -> dict[str, Any]:
    """What the configuration of a LoRA of twice the rank says, so that the scale is the same."""
    factor = 2**0.5 if config.use_rslora else 2
    return {
        "r": 2 * config.r,
        "lora_alpha": factor * config.lora_alpha,
        **(
            {"rank_pattern": {key: 2 * rank for key, rank in config.rank_pattern.items()}}
            if config.rank_pattern
            else {}
        ),
        **(
            {"alpha_pattern": {key: factor * alpha for key, alpha in config.alpha_pattern.items()}}
            if config.alpha_pattern
            else {}
        ),
    }


@torch.no_grad()
def subtract_first(model: Any, first: Mapping[str, Tensor]) -> None:
    """Take the first update out of the base weights of a model that has them whole.

    The order of operations is PEFT's own in each start, so that a resumed run has the same bits.
    """
    for name, layer in _layers(model):
        weight = layer.get_base_layer().weight
        down, up = (first[f"{name}{suffix}"].to(weight.device, torch.float32) for suffix in (A, B))
        update = layer.scaling["default"] * up @ down
        turned = update.T if isinstance(layer.get_base_layer(), Conv1D) else update
        weight.data = (weight.data.float() - turned).to(weight.dtype)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Adapted modules by their names in a checkpoint."""
    for name, module in model.named_modules():
        if "default" in getattr(module, "lora_A", {}):
            yield name, module
