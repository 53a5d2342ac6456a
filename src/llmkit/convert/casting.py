"""Tensors in another type, and whether it can hold their numbers."""

import torch
from torch import Tensor

from llmkit.convert.tensor_files import TensorShape
from llmkit.errors import ConvertError

PART = 1 << 20
"""Numbers that are looked at together."""


def converted(shape: TensorShape, dtype: torch.dtype | None) -> TensorShape:
    """The same tensor in another type; counts and masks keep theirs."""
    return shape if dtype is None or not shape.dtype.is_floating_point else TensorShape(dtype, shape.shape)


def all_finite(tensor: Tensor) -> bool:
    """Whether no number is infinite or none at all; looks at a part at a time, as it copies what it looks at."""
    return all(torch.isfinite(part.float()).all() for part in tensor.reshape(-1).split(PART))


def in_dtype(tensor: Tensor, dtype: torch.dtype, name: str) -> Tensor:
    """A tensor in a type that holds it.

    Raises:
        ConvertError: one of its numbers is not finite there.
    """
    if not tensor.dtype.is_floating_point:
        return tensor
    cast = tensor.to(dtype)
    if not all_finite(cast):
        kind = str(dtype).removeprefix("torch.")
        if all_finite(tensor):
            raise ConvertError(f"{name}: has numbers that {kind} cannot hold; use --dtype bfloat16 or float32")
        raise ConvertError(f"{name}: has numbers that are not finite; nothing was written")
    return cast


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same bytes."""
    flat = [tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    return torch.equal(flat[0], flat[1])
