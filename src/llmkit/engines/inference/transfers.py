"""Numbers on their way between Python and a device, without waiting for what the device is doing."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def to_device(numbers: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """The same numbers on a device.

    To a GPU through pinned memory: from ordinary memory PyTorch's copy waits until the GPU has done all before it.
    """
    tensor = torch.as_tensor(numbers)
    if device.type != "cuda" or not torch.cuda.is_available():
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def to_host(tensors: Sequence[Tensor]) -> list[np.ndarray]:
    """Tensors of any shapes as float64 arrays, from one device in one transfer, which waits for all of them.

    Token ids and other whole numbers below 2^53 are exact.
    """
    flat = torch.cat([tensor.double().flatten() for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])
    return [part.reshape(tensor.shape) for part, tensor in zip(np.split(flat, ends[:-1]), tensors, strict=True)]


def pick(values: Tensor, rows: Sequence[int]) -> Tensor:
    """Some rows of a tensor, anew."""
    return values.index_select(0, to_device(np.array(rows, dtype=np.int64), values.device))


def put(values: Tensor, rows: Sequence[int], new: Tensor) -> Tensor:
    """The tensor, some of its rows replaced in place."""
    return values.index_copy_(0, to_device(np.array(rows, dtype=np.int64), values.device), new)
