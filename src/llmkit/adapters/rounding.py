"""The part of a weight that its rounding has lost, as the start of a LoRA."""

from typing import Any

import torch
from peft.utils.integrations import dequantize_module_weight
from torch import nn


@torch.no_grad()
def fit_rounding(model: Any, whole: nn.Module) -> None:
    """Set every LoRA to the best approximation, at its rank, of whole less rounded weight.

    One round of algorithm 1 of arXiv:2310.08659, with the rounded weights as they are loaded: later rounds would round
    others, which no checkpoint of the base model has.

    Args:
        model: a wrapped model of rounded weights.
        whole: the base model of whole ones.
    """
    for name, layer in model.get_base_model().named_modules():
        if "default" not in getattr(layer, "lora_A", {}):
            continue
        rounded = dequantize_module_weight(layer.get_base_layer()).float()
        lost = whole.get_parameter(f"{name}.weight").to(rounded) - rounded
        left, values, right = torch.linalg.svd(lost, full_matrices=False)
        rank, scale = layer.r["default"], layer.scaling["default"]
        root = (values[:rank] / scale).sqrt()
        layer.lora_B["default"].weight.copy_(left[:, :rank] * root)
        layer.lora_A["default"].weight.copy_(root[:, None] * right[:rank])
