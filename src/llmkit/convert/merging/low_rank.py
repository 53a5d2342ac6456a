"""Plain LoRA as updates of single weights, for merging without a model in memory."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from llmkit.adapters.adapter_files import minimal
from llmkit.convert.merging.adapters import StoredAdapter
from llmkit.convert.tensor_files import TensorShape
from llmkit.errors import CheckpointError

FACTOR = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<which>[AB])\.weight$")
UNDERSTOOD = frozenset({
    "peft_type", "task_type", "base_model_name_or_path", "revision", "inference_mode", "auto_mapping", "peft_version",
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "rank_pattern", "alpha_pattern",
    "use_rslora", "fan_in_fan_out", "layers_to_transform", "layers_pattern", "eva_config", "velora_config",
    "init_lora_weights", "runtime_config", "loftq_config",
})  # fmt: skip
"""Settings that leave an update the product of two matrices; a setting besides these means more than that."""
ONLY_FOR_TRAINING = ".lora_velora_embed"
"""The projection of VeLoRA's backward pass, which the forward pass does without."""
HARMLESS_STARTS = ("", "gaussian", "orthogonal", "eva", "mica", "true", "false")


@dataclass(frozen=True)
class LowRankUpdate:
    """Of one layer.

    Attributes:
        adapter: that it is part of.
        down: name of the [r, inputs] matrix.
        up: name of the [outputs, r] matrix.
        scale: of their product.
        is_turned: whether the weight is kept as [inputs, outputs].
    """

    adapter: StoredAdapter
    down: str
    up: str
    scale: float
    is_turned: bool

    def matrix(self) -> Tensor:
        """The update, of the weight's shape, in float32.

        Raises:
            CheckpointError: it has numbers that are not finite.
        """
        down, up = (self.adapter.weights.read(name).float() for name in (self.down, self.up))
        update = self.scale * (up @ down)
        if not torch.isfinite(update).all():
            raise CheckpointError(f"{self.adapter.path}: {self.up} or {self.down} has numbers that are not finite")
        return update.T if self.is_turned else update


def low_rank_updates(
    adapter: StoredAdapter, model: nn.Module, tensors: Mapping[str, TensorShape]
) -> dict[str, LowRankUpdate] | str:
    """The updates by the names of the weights in the checkpoint, or why they cannot be had one by one.

    Args:
        adapter: of any kind.
        model: the base model on the meta device.
        tensors: of the base model's files.

    Raises:
        CheckpointError: the adapter is of another model, or half of a pair is missing.
    """
    if reason := _more_than_products(adapter):
        return reason
    pairs = _pairs(adapter)
    modules = dict(model.named_modules())
    tied = _tied_layers(model)
    found: dict[str, LowRankUpdate] = {}
    for layer, pair in pairs.items():
        module, weight = modules.get(layer), f"{layer}.weight"
        if module is None:
            raise CheckpointError(
                f"{adapter.path}: the base model has no layer {layer}; the adapter is of another model. Name the right "
                "one with --base"
            )
        if layer in tied:
            return f"{layer} shares its weights with another layer"
        if type(module) not in (nn.Linear, Conv1D) or weight not in tensors:
            return f"{layer} is not kept as one matrix of a linear layer"
        is_turned = isinstance(module, Conv1D)
        _check_shapes(adapter, layer, pair, tensors[weight].shape, is_turned)
        scale = _scale(adapter.config, layer, adapter.weights.tensors[pair["A"]].shape[0])
        found[weight] = LowRankUpdate(adapter, pair["A"], pair["B"], scale, is_turned)
    return found


def _more_than_products(adapter: StoredAdapter) -> str:
    if adapter.kind != "LORA":
        return f"it is of the kind {adapter.kind}"
    if adapter.model.get("add_tokens") or adapter.model.get("add_special_tokens"):
        return "its run has added tokens to the model"
    if adapter.start not in HARMLESS_STARTS:
        return f"it began with init_lora_weights={adapter.start!r}"
    for setting, value in minimal(adapter.config).items():
        if setting not in UNDERSTOOD:
            return f"it has {setting}={value!r}"
    other = next((name for name in _weights(adapter) if FACTOR.match(name) is None), None)
    return "" if other is None else f"{other} is no factor of a linear layer"


def _weights(adapter: StoredAdapter) -> list[str]:
    return [name for name in adapter.weights.tensors if not name.endswith(ONLY_FOR_TRAINING)]


def _pairs(adapter: StoredAdapter) -> dict[str, dict[str, str]]:
    pairs: dict[str, dict[str, str]] = {}
    for name in _weights(adapter):
        match = FACTOR.match(name)
        assert match is not None, "others have been told of before"
        pairs.setdefault(match["layer"], {})[match["which"]] = name
    if not pairs:
        raise CheckpointError(f"{adapter.path}: the adapter has no weights")
    if half := next((layer for layer, pair in pairs.items() if len(pair) == 1), None):
        raise CheckpointError(f"{adapter.path}: one of the two matrices of {half} is missing; the file is damaged")
    return pairs


def _check_shapes(
    adapter: StoredAdapter, layer: str, pair: Mapping[str, str], shape: tuple[int, ...], is_turned: bool
) -> None:
    down, up = (adapter.weights.tensors[pair[which]].shape for which in "AB")
    wanted = shape[::-1] if is_turned else shape
    if len(down) != 2 or len(up) != 2 or (up[0], down[1]) != tuple(wanted) or up[1] != down[0]:
        raise CheckpointError(
            f"{adapter.path}: the update of {layer} is {list(up)} times {list(down)}, and the base model's weight is "
            f"{list(wanted)}; the adapter is of another model. Name the right one with --base"
        )


def _scale(config: Any, layer: str, rank: int) -> float:
    """`alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA (arXiv:2312.03732)."""
    alpha = config.lora_alpha
    for pattern, value in (config.alpha_pattern or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = value
            break
    return alpha / (rank**0.5 if config.use_rslora else rank)


def _tied_layers(model: Any) -> set[str]:
    """Embedding and output head, where they are the same."""
    if not getattr(model.config.get_text_config(), "tie_word_embeddings", False):
        return set()
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {name for name, module in model.named_modules() if any(module is end for end in ends)}
