"""Servers' models and trainers' policies for `llmkit bench weights`."""

from pathlib import Path

import torch

from llmkit import plugins
from llmkit.bench.generation_material import model_directory
from llmkit.config.schema import DeviceConfig, ModelConfig
from llmkit.data.opening import open_codec
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.models.policy import Policy, load_policy


def served_model(model: str, directory: Path) -> Path:
    """The model's directory; a shape is made there, with a tokenizer since servers want one.

    Raises:
        ConfigError: there is neither a shape nor a directory of that name.
    """
    path = model_directory(model, directory)
    if path.parent == directory:
        open_codec(ModelConfig(path="builtin:tiny-untrained")).tokenizer.save_pretrained(path)
    return path


def make_policy(model: ModelConfig, device: DeviceConfig, lora_rank: int | None) -> Policy:
    """The model as a trainer has it, all of it or with a LoRA of this rank.

    Raises:
        ModelError: the checkpoint cannot be loaded.
    """
    policy = load_policy(model, device)
    if lora_rank is not None:
        front = plugins.load("adapters", "lora")
        policy.model = front.build(front.Config(r=lora_rank)).attach(policy.model).to(policy.device).eval()
    return policy


def weight_bytes(policy: Policy, *, is_adapter: bool) -> int:
    """What an update brings to each server, in bfloat16 for whole weights."""
    if is_adapter:
        return sum(one.numel() * one.itemsize for one in policy.model.parameters() if one.requires_grad)
    return PolicyWeights(policy).num_bytes(torch.bfloat16)
