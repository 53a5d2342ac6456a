"""A policy's LoRA in PEFT's layout, for servers that keep it beside the base model."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import peft
import torch
from safetensors.torch import save_file

from llmkit.engines.inference.weight_sync.contract import Named
from llmkit.models.policy import Policy

WEIGHTS = "adapter_model.safetensors"
UNDERSTOOD = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version",
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "use_rslora", "layers_to_transform",
    "layers_pattern", "runtime_config", "init_lora_weights",
})  # fmt: skip
"""Settings of PEFT that leave the update a product of two matrices with one scale."""
HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva", "mica")
"""Ways to begin that leave the base weights as the server has them."""


def not_servable(policy: Policy) -> str:
    """Why servers cannot take the policy's adapter beside their base model; empty when they can."""
    configs: dict[str, Any] = getattr(policy.model, "peft_config", {})
    if not configs:
        return "the policy has no adapter"
    config = configs["default"]
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        return f"servers take plain LoRA, and the adapter is of the kind {kind}"
    if config.init_lora_weights not in HARMLESS_STARTS:
        return f"it began with init_lora_weights={config.init_lora_weights!r}, which has changed the base weights"
    for field in fields(config):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        value = getattr(config, field.name)
        if field.name not in UNDERSTOOD and value != default and value not in (None, False, "none", [], {}):
            return f"it has {field.name}={value!r}, which is more than an added product"
    return ""


def rank_of(policy: Policy) -> int:
    """The LoRA's rank."""
    return int(policy.model.peft_config["default"].r)


@torch.no_grad()
def adapter_tensors(policy: Policy, dtype: torch.dtype | None) -> list[Named]:
    """Copies of the adapter's weights under the names that they have in PEFT's files."""
    state = peft.get_peft_model_state_dict(policy.model, save_embedding_layers=False)
    return [(name, tensor.detach().to("cpu", dtype, copy=True).contiguous()) for name, tensor in state.items()]


def write_adapter(policy: Policy, directory: Path, dtype: torch.dtype | None) -> None:
    """Write weights and configuration as PEFT reads them."""
    policy.model.peft_config["default"].save_pretrained(str(directory))
    save_file(dict(adapter_tensors(policy, dtype)), directory / WEIGHTS, metadata={"format": "pt"})
