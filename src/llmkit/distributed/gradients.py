"""What gradients of several processes come to."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from llmkit.distributed.world import World, all_reduce

BUCKET_BYTES = 64 << 20
"""Gradients that travel together: many small messages cost more than one."""


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; memory is shared."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def num_copies(parameter: Tensor, world: World) -> int:
    """How many processes hold the same part of a parameter as this one."""
    if not isinstance(parameter, DTensor):
        return world.size
    mesh = parameter.device_mesh
    parts = 1
    for dimension, placement in enumerate(parameter.placements):
        if not placement.is_replicate():
            parts *= mesh.size(dimension)
    return world.size // parts


def sum_in_buckets(gradients: Sequence[Tensor], group: Any) -> None:
    """Add up each gradient over a group, in place; many travel together."""
    bucket: list[Tensor] = []
    size = 0
    for gradient in gradients:
        if bucket and (size + gradient.nbytes > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            _sum(bucket, group)
            bucket, size = [], 0
        bucket.append(gradient)
        size += gradient.nbytes
    if bucket:
        _sum(bucket, group)


def global_norm(gradients: Sequence[tuple[nn.Parameter, Tensor]], world: World) -> Tensor:
    """L2 norm of the whole gradient, the same number in every process; on the CPU.

    Args:
        gradients: parameters, each with this process's part of its gradient.
    """
    squares = [
        torch.linalg.vector_norm(gradient, dtype=torch.float64).square() / num_copies(parameter, world)
        for parameter, gradient in gradients
    ]
    square = torch.stack(squares).sum().cpu() if squares else torch.zeros((), dtype=torch.float64)
    all_reduce(square)
    return square.sqrt()


class Gradients:
    """The gradients of the parameters that train, wherever their parts are.

    Attributes:
        parts: this process's parts of the parameters, in their memory; the parameters themselves where they are whole.
        is_divided: whether some of them are parts.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], world: World, summed: Sequence[nn.Parameter] = ()) -> None:
        """
        Args:
            parameters: those that train.
            summed: those whose gradients are to be added up over the tensor dimension.
        """
        self._world = world
        self._parameters = list(parameters)
        self.parts = [_part(parameter) for parameter in parameters]
        self.is_divided = any(isinstance(parameter, DTensor) for parameter in parameters)
        ids = {id(parameter) for parameter in summed}
        self._summed = [part for part, whole in self._pairs() if id(whole) in ids]

    def part_of(self, parameter: nn.Parameter) -> nn.Parameter:
        """This process's part of a parameter."""
        return next(part for part, whole in self._pairs() if whole is parameter)

    def of_micro_batches(self) -> list[Tensor]:
        """What this process has gathered so far."""
        return [local(parameter.grad) for parameter in self._parameters if parameter.grad is not None]

    def complete(self) -> None:
        """Add up what the processes have gathered, and give each part its own; all of them take part."""
        for part, whole in self._pairs():
            if part is not whole:
                part.grad = None if whole.grad is None else local(whole.grad)
        if self._world.size == 1:
            return
        self._fill_up()
        if self._summed:
            sum_in_buckets(_gradients(self._summed), self._world.group("tensor"))
        if not self._world.dimensions.is_sharded and self._world.data_size > 1:
            sum_in_buckets(_gradients(self.parts), self._world.group("replicate"))

    def clip(self, limit: float) -> Tensor:
        """Scale them down to the greatest norm allowed; returns the norm before, which is not waited for."""
        if not self.is_divided:
            return nn.utils.clip_grad_norm_(self.parts, limit)
        norm = global_norm([(whole, part.grad) for part, whole in self._pairs() if part.grad is not None], self._world)
        nn.utils.clip_grads_with_norm_(self.parts, limit, norm.float())
        return norm

    def clear(self) -> None:
        """Forget them."""
        for tensor in (*self._parameters, *self.parts):
            tensor.grad = None

    def _fill_up(self) -> None:
        """Zeros for a parameter that got a gradient in another process and none in this one, which had no rows."""
        there = torch.tensor([part.grad is not None for part in self.parts], dtype=torch.int32)
        all_reduce(there)
        for part, count in zip(self.parts, there.tolist(), strict=True):
            if part.grad is None and count:
                part.grad = torch.zeros_like(part)

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return list(zip(self.parts, self._parameters, strict=True))


def _part(parameter: nn.Parameter) -> nn.Parameter:
    if not isinstance(parameter, DTensor):
        return parameter
    return nn.Parameter(local(parameter.detach()), requires_grad=parameter.requires_grad)


def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def _sum(bucket: Sequence[Tensor], group: Any) -> None:
    if len(bucket) == 1:
        all_reduce(bucket[0], group)
        return
    flat = torch.cat([gradient.flatten() for gradient in bucket])
    all_reduce(flat, group)
    for gradient, part in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):
        gradient.copy_(part.view_as(gradient))
