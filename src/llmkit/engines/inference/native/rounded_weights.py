"""Matrices rounded to the compute type once for many steps, where autocast would round them in every one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from llmkit.models.policy import Policy


class RoundedWeights(TorchFunctionMode):
    """Within its block, linear layers of this thread multiply with copies of their matrices in the compute type.

    The numbers are those of autocast to the bit. Other threads, such as the trainer's, see nothing of it. The copies
    take as many bytes as the parameters would in the compute type, and are made by the first step that needs them.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._dtype = policy.compute_dtype
        self._copies: dict[int, tuple[nn.Parameter, Tensor]] = {}
        self._is_stale = True
        self._model: nn.Module = policy.model

    def weights_changed(self) -> None:
        """Round anew before the next step."""
        self._is_stale = True

    @torch.no_grad()
    def refresh(self) -> None:
        """Round what has changed; to be called before each block."""
        if not self._is_stale:
            return
        before, self._copies = self._copies, {}
        for module in self._model.modules():
            # Sharded and quantised matrices have parameters of classes of their own.
            if not isinstance(module, nn.Linear) or type(module.weight) is not nn.Parameter:
                continue
            matrix = module.weight
            if matrix.dtype == self._dtype or not matrix.is_floating_point() or id(matrix) in self._copies:
                continue
            known = before.get(id(matrix))
            if known is None:
                self._copies[id(matrix)] = (matrix, matrix.detach().to(self._dtype))
            else:
                self._copies[id(matrix)] = known
                known[1].copy_(matrix)
        self._is_stale = False

    def close(self) -> None:
        """Free the copies."""
        self._copies.clear()
        self._is_stale = True

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
