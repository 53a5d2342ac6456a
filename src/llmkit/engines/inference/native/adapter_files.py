"""Read a low-rank adapter as PEFT writes it, and say what else a directory holds."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from llmkit.errors import RequestError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
FACTOR = re.compile(r"^base_model\.model\.(?P<path>.+)\.lora_(?P<which>[AB])\.weight$")


@dataclass(frozen=True)
class LowRankAdapter:
    """Matrices to add to linear layers, as products.

    Attributes:
        factors: for the path of each layer, `down` [r, inputs] and `up` [outputs, r], the scale in `up`.
    """

    factors: dict[str, tuple[Tensor, Tensor]]


def read_adapter(path: Path) -> LowRankAdapter:
    """The adapter in a directory.

    Raises:
        RequestError: there is none, it is damaged, or it is of a kind that cannot be applied row by row.
    """
    config = _read_config(path)
    _check_kind(path, config)
    try:
        weights = load_file(path / WEIGHTS_FILE)
    except FileNotFoundError:
        raise RequestError(f"{path}: no {WEIGHTS_FILE}; is this the directory that holds the adapter?") from None
    except (OSError, SafetensorError) as error:
        raise RequestError(f"{path / WEIGHTS_FILE} cannot be read: {error}") from None
    halves: dict[str, dict[str, Tensor]] = {}
    for key, tensor in weights.items():
        found = FACTOR.match(key)
        if found is None:
            raise RequestError(
                f"{path}: {key} is no factor of a linear layer; only plain LoRA can be served beside others. "
                f"Merge it instead: llmkit convert merge"
            )
        halves.setdefault(found["path"], {})[found["which"]] = tensor
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for layer, half in halves.items():
        if half.keys() != {"A", "B"} or half["A"].shape[0] != half["B"].shape[1]:
            raise RequestError(f"{path}: the factors of {layer} are incomplete or do not fit each other")
        factors[layer] = (half["A"], half["B"] * _scale(config, layer, half["A"].shape[0]))
    if not factors:
        raise RequestError(f"{path}: the adapter is empty")
    return LowRankAdapter(factors)


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RequestError(f"{path}: no {CONFIG_FILE}; give the directory of an adapter that PEFT wrote") from None
    except (OSError, ValueError) as error:
        raise RequestError(f"{path / CONFIG_FILE} cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise RequestError(f"{path / CONFIG_FILE}: a JSON object is expected")
    return config


def _check_kind(path: Path, config: dict[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise RequestError(f"{path}: an adapter of type {kind}; only LORA can be served beside others")
    for option in ("use_dora", "modules_to_save", "trainable_token_indices", "target_parameters"):
        if config.get(option):
            raise RequestError(
                f"{path}: its {CONFIG_FILE} has {option}={config[option]!r}, which changes more than a product added "
                f"to linear layers; merge it into its base model instead"
            )
    if config.get("bias", "none") != "none":
        raise RequestError(f"{path}: it trained biases (bias={config['bias']!r}); merge it into its base model instead")


def _scale(config: dict[str, Any], layer: str, rank: int) -> float:
    """`alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA (arXiv:2312.03732)."""
    alpha = config.get("lora_alpha", 8)  # what PEFT means when the file does not say
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):
            alpha = value
            break
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)
