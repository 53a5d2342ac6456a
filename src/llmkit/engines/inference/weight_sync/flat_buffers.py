"""Tensors one after another in one buffer of bytes."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.weight_sync.contract import Named


def ordered(bucket: Sequence[Named]) -> list[Named]:
    """The tensors with the widest elements first: each then begins at a multiple of its element."""
    return sorted(bucket, key=lambda named: -named[1].dtype.itemsize)


def flatten(bucket: Sequence[Named], device: torch.device) -> Tensor:
    """[bytes] of all tensors, on a device."""
    parts = [tensor.to(device).contiguous().reshape(-1).view(torch.uint8) for _, tensor in bucket]
    return torch.cat(parts)


def layout(bucket: Sequence[Named]) -> list[list[Any]]:
    """Name, type and shape of each tensor, as messages have them."""
    return [[name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)] for name, tensor in bucket]
