"""Whether a forward pass waits for its device, which no recording can."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "_local_scalar_dense",
    "_unique2",
    "bincount",
    "equal",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
}
"""Operations whose result, or its shape, is read from the device."""
INDEXING = {"index", "index_put", "index_put_"}
"""Operations that look for what is true where they are given a mask."""
READING = {"__bool__", "__complex__", "__contains__", "__float__", "__index__", "__int__", "item", "tolist"}
"""What Python reads a tensor with; in inference mode PyTorch names no operation for it."""


class Waits:
    """Within its block, finds what waits for the device, on whichever device it is carried out.

    Attributes:
        found: names of operations, each once.
    """

    def __init__(self) -> None:
        self.found: list[str] = []
        self._modes = _Reads(self.found), _Operations(self.found)

    def __enter__(self) -> Self:
        for mode in self._modes:
            mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class _Reads(TorchFunctionMode):
    """Notes how Python reads tensors."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What PyTorch calls in place of each of its functions."""
        name = getattr(func, "__name__", "")
        if name in READING and name not in self._found:
            self._found.append(name)
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Notes what PyTorch's operations read."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self._found = found

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """What PyTorch calls in place of each of its operations."""
        options = kwargs or {}
        with self:  # inference mode does not take operations apart before they come here
            parts = func.decompose(*args, **options)
        if parts is not NotImplemented:
            return parts
        name: str = func._schema.name.partition("::")[2]
        if name not in self._found and _waits(name, args, options):
            self._found.append(name)
        return func(*args, **options)


def _waits(name: str, args: Sequence[Any], options: Mapping[str, Any]) -> bool:
    if name in INDEXING:
        return any(isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    if name == "repeat_interleave":
        return options.get("output_size") is None
    if name == "_to_copy":
        return str(options.get("device")) == "cpu" and args[0].device.type != "cpu"
    return name in WAITING
