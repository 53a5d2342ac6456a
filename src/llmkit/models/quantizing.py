"""Weights of 4 or 8 bits: what transformers needs to load them, and how much memory they take."""

import logging
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from llmkit.config.schema import ModelConfig
from llmkit.errors import ModelError

BITS = {"bnb_4bit": 4, "bnb_8bit": 8, "torchao_int8": 8}
PACKAGES = {"bnb_4bit": "bitsandbytes", "bnb_8bit": "bitsandbytes", "torchao_int8": "torchao"}
EXTRAS = {"bitsandbytes": "quantization", "torchao": "torchao"}


def quantization_options(config: ModelConfig) -> dict[str, Any]:
    """What loading gets besides its usual options; nothing for whole weights.

    Raises:
        ModelError: the package that it needs is not installed.
    """
    if config.quantization == "none":
        return {}
    package = PACKAGES[config.quantization]
    if find_spec(package) is None:
        raise ModelError(
            f"model.quantization={config.quantization} needs {package}: pip install 'llmkit[{EXTRAS[package]}]'"
        )
    if package == "torchao":
        return {"quantization_config": _torchao_int8()}
    from transformers import BitsAndBytesConfig

    # It tells in every forward pass that it computes in float16.
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
    if config.quantization == "bnb_8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    compute = torch.bfloat16 if config.dtype == "auto" else getattr(torch, config.dtype)
    # NormalFloat, and its scales in 8 bits themselves: arXiv:2305.14314, sections 3.1 and 3.2.
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute,
    )
    return {"quantization_config": settings}


def _torchao_int8() -> Any:
    """Weights of 8 bits with a scale for each row; activations stay as they are."""
    quantization: Any = import_module("torchao.quantization")
    from transformers import TorchAoConfig

    return TorchAoConfig(quant_type=quantization.Int8WeightOnlyConfig(version=2))


def keep_differentiable(model: nn.Module) -> None:
    """Keep 4-bit weights in the order in which they can be trained through.

    On a CPU with bfloat16 instructions, bitsandbytes reorders them at the first pass that is not of training, and no
    gradient flows through them from then on: an evaluation before the first step would spoil the run.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            vars(module)["support_avx512bf16_for_cpu"] = False


def weight_bytes(model: nn.Module, quantization: str, width: int) -> int:
    """Bytes of a model's weights, shared ones once.

    Args:
        quantization: of its linear layers; embeddings, norms and the output head stay whole.
        width: bytes of a whole weight.
    """
    total = sum(parameter.numel() for parameter in model.parameters()) * width
    if quantization == "none":
        return total
    head = getattr(model, "get_output_embeddings", lambda: None)()
    linear = sum(
        module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear) and module is not head
    )
    return total - linear * width + linear * BITS[quantization] // 8
