"""Tensors as the bytes of the format's types, and back."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from llmkit.convert.casting import in_dtype
from llmkit.convert.gguf_files.kquants import BLOCK, QUANTIZERS
from llmkit.convert.tensor_files import bytes_of

PLAIN = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
STEP = 1024
"""Blocks that are quantised together, few enough for the processor's cache."""


def num_bytes(kind: str, shape: tuple[int, ...]) -> int:
    """Bytes that a tensor takes in a type."""
    import gguf

    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    return int(np.prod(shape)) // block * size


def encode(part: Tensor, kind: str, name: str) -> Any:
    """Rows of a tensor in a type, as a buffer.

    Raises:
        ConvertError: a number is not finite, or too large for the type.
    """
    import gguf

    if kind in PLAIN:
        return bytes_of(in_dtype(part, PLAIN[kind], name))
    numbers = in_dtype(part, torch.float32, name).contiguous().numpy()
    if kind not in QUANTIZERS:
        return np.ascontiguousarray(gguf.quants.quantize(numbers, gguf.GGMLQuantizationType[kind])).data
    blocks = numbers.reshape(-1, BLOCK)
    pieces = [QUANTIZERS[kind](blocks[start : start + STEP]) for start in range(0, len(blocks), STEP)]
    return np.concatenate(pieces).data


def decode(content: Any, kind: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers out of the bytes of rows: of the type's own kind where it is plain, float32 otherwise."""
    import gguf

    flat = np.frombuffer(content, dtype=np.uint8)
    if kind in PLAIN:
        return torch.from_numpy(flat.copy()).view(PLAIN[kind]).reshape(shape)
    block, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    rows = flat.reshape(-1, shape[-1] // block * size)
    return torch.from_numpy(gguf.quants.dequantize(rows, gguf.GGMLQuantizationType[kind])).reshape(shape)
