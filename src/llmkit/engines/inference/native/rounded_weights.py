"""Matrices rounded to the compute type once for many steps, where autocast would round them in every one."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from llmkit.models.policy import Policy

LEAST_NUMBERS = {"cpu": 1 << 20}
"""Autocast leaves smaller ones in the processor's cache, where the product finds them at once."""


class RoundedWeights(TorchFunctionMode):
    """Within its block, linear layers of this thread multiply with copies of their matrices in the compute type.

    The numbers are those of autocast to the bit. Other threads, such as the trainer's, see nothing of it. The copies
    take as many bytes as the parameters would in the compute type, and are made by the first step that needs them.
    """

    def __init__(self, policy: Policy, *, least_numbers: int | None = None) -> None:
        """Args:
        least_numbers: of a matrix that is worth a copy; None is what pays on the policy's device.
        """
        super().__init__()
        if least_numbers is None:
            least_numbers = LEAST_NUMBERS.get(policy.device.type, 0)
        self._least_numbers = least_numbers
        self._dtype = policy.compute_dtype
        self._copies: dict[int, tuple[nn.Parameter, Tensor]] = {}
        self._is_stale = True
        self._model: nn.Module = policy.model

    def weights_changed(self) -> None:
        """Round anew before the next step."""
        self._is_stale = True

    def applied(self) -> AbstractContextManager[object]:
        """The block of a step, with the weights of the last change."""
        if self._is_stale:
            self._round()
        return self if self._copies else nullcontext()

    def close(self) -> None:
        """Free the copies."""
        self._copies.clear()
        self._is_stale = True

    @torch.no_grad()
    def _round(self) -> None:
        before, self._copies = self._copies, {}
        for module in self._model.modules():
            # Sharded and quantised matrices have parameters of classes of their own.
            if not isinstance(module, nn.Linear) or type(module.weight) is not nn.Parameter:
                continue
            matrix = module.weight
            if matrix.dtype == self._dtype or not matrix.is_floating_point() or matrix.numel() < self._least_numbers:
                continue
            if id(matrix) in self._copies:
                continue
            known = before.get(id(matrix))
            if known is None:
                self._copies[id(matrix)] = (matrix, matrix.detach().to(self._dtype))
            else:
                self._copies[id(matrix)] = known
                known[1].copy_(matrix)
        self._is_stale = False

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What PyTorch calls in place of each of its functions."""
        if func is F.linear and len(args) > 1 and (known := self._copies.get(id(args[1]))) is not None:
            args = (args[0], known[1], *args[2:])
        return func(*args, **(kwargs or {}))
