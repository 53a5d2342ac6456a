"""A model with weights of 8 or 4 bits by torchao, in a directory that transformers loads."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from llmkit.config.schema import ModelConfig
from llmkit.convert.merging.base import copy_beside
from llmkit.convert.merging.checking import logits_of
from llmkit.convert.tensor_files import WeightFiles
from llmkit.errors import ConfigError, ConvertError
from llmkit.models.loading import load_model

KINDS = ("int8_weight_only", "int4_weight_only")
LIMITS = {"int8_weight_only": 0.1, "int4_weight_only": 0.5}
"""Largest root mean square of the differences of logits, as a share of the logits', that rounding explains."""


def check_kind(kind: str) -> None:
    """Refuse what cannot be written on this machine.

    Raises:
        ConfigError: names what is missing.
    """
    if find_spec("torchao") is None:
        raise ConfigError(f"--quantize {kind} needs torchao: pip install 'llmkit[torchao]'")
    if kind == "int4_weight_only" and (find_spec("mslk") is None or not torch.cuda.is_available()):
        raise ConfigError(
            f"--quantize {kind}: torchao packs such weights with the kernels of the package mslk on a GPU, which are "
            "not here. For 4 bits on this machine: --to gguf --quantize q4_k_m"
        )


def write_quantized(directory: Path, kind: str, dtype: torch.dtype | None, out: Path) -> dict[str, Any]:
    """Write the model; its weights are in memory while they are rounded.

    Args:
        directory: of the model.
        kind: one of `KINDS`.
        dtype: in which the other weights are kept and it computes; None is the model's own.
        out: the directory to write.

    Returns: what was found when it was loaded again.

    Raises:
        ConvertError: it does not say what the model says.
        ModelError: the model cannot be read.
    """
    from transformers import AutoModelForCausalLM, TorchAoConfig

    name = "auto" if dtype is None else str(dtype).removeprefix("torch.")
    expected = logits_of(load_model(ModelConfig(path=str(directory), dtype=name)))  # type: ignore[arg-type]
    options = {"dtype": name if dtype is None else dtype, "device_map": "cuda" if kind.startswith("int4") else "cpu"}
    settings = TorchAoConfig(quant_type=_torchao_config(kind))
    model: Any = AutoModelForCausalLM.from_pretrained(directory, quantization_config=settings, **options)
    found = logits_of(model.eval())
    model.save_pretrained(out)
    copy_beside(directory, None, out)
    del model
    written: Any = AutoModelForCausalLM.from_pretrained(out, dtype="auto", device_map=options["device_map"])
    if not torch.equal(logits_of(written.eval()), found):
        raise ConvertError("the written model's logits are not those of the quantised one; nothing was written")
    stored = WeightFiles(out).tensors
    return _compared(expected, found, kind) | {
        "tensors": len(stored),
        "bytes": sum(entry.num_bytes for entry in stored.values()),
        "loaded_again": "equal logits",
    }


def _torchao_config(kind: str) -> Any:
    quantization: Any = import_module("torchao.quantization")
    if kind == "int8_weight_only":
        return quantization.Int8WeightOnlyConfig(version=2)
    return quantization.Int4WeightOnlyConfig(group_size=128)


def _compared(expected: Tensor, found: Tensor, kind: str) -> dict[str, Any]:
    error = ((expected - found).square().mean() / expected.square().mean()).sqrt().item()
    if not error <= LIMITS[kind]:
        raise ConvertError(
            f"the logits differ by {error:.1%} of their size, and {kind} explains {LIMITS[kind]:.0%} at most; nothing "
            "was written"
        )
    same = (expected.argmax(-1) == found.argmax(-1)).float().mean().item()
    return {"relative_error": error, "same_tokens": same, "largest_difference": (expected - found).abs().max().item()}
