"""Keep what the backward pass needs in the memory of the host, instead of that of the GPU."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

LEAST_BYTES = 1 << 20
"""Smaller tensors stay where they are: moving them costs more time than they take memory."""


class _Moved(NamedTuple):
    kept: Tensor
    device: torch.device


class offload_activations(saved_tensors_hooks):  # noqa: N801 - a context manager, as its base is
    """Within it, what a forward pass on a GPU saves for its backward pass goes to pinned memory of the host, and comes
    back when it is needed. Parameters, and what lies on the host already, stay.

    Copies are in the order of the stream that computes, so no memory is used again before it was read.
    """

    def __init__(self, least_bytes: int = LEAST_BYTES, devices: tuple[str, ...] = ("cuda",)) -> None:
        """
        Args:
            least_bytes: smallest tensor to move.
            devices: kinds of devices whose tensors are moved.
        """
        self.moved_bytes = 0

        def pack(tensor: Tensor) -> Any:
            size = tensor.numel() * tensor.element_size()
            if tensor.device.type not in devices or size < least_bytes or _is_parameter(tensor):
                return tensor
            self.moved_bytes += size
            kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            return _Moved(kept.copy_(tensor, non_blocking=True), tensor.device)

        def unpack(packed: Any) -> Tensor:
            return packed.kept.to(packed.device, non_blocking=True) if isinstance(packed, _Moved) else packed

        super().__init__(pack, unpack)


def _is_parameter(tensor: Tensor) -> bool:
    """Whether it is a parameter or a view of one, such as the transposed weight of a linear layer."""
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
