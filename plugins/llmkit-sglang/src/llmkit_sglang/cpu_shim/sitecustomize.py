"""What a SGLang server needs on a machine without a GPU. Python imports this first, where the directory is on its path.

Two modules get help just before they are imported:

* `torchvision`: PyPI's build is made for CUDA, and with PyTorch for CPUs its operators are missing, which ends the
  import. Declaring them is enough: nothing of a text model calls them.
* SGLang's LoRA layers: they allocate memory that is pinned for a GPU, which PyTorch refuses where there is none.
"""

import importlib.abc
import sys
from collections.abc import Callable
from typing import Any

ALLOCATIONS = ("empty", "zeros", "tensor", "empty_like", "zeros_like")


class Before(importlib.abc.MetaPathFinder):
    """Does something when a module is imported for the first time, and leaves the import to others."""

    def __init__(self, module: str, work: Callable[[], None]) -> None:
        self._module = module
        self._work = work

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        """What Python asks of each module."""
        if fullname == self._module:
            sys.meta_path.remove(self)
            self._work()


def declare_operators() -> None:
    """The operators of torchvision that its import looks for."""
    import torch

    schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", schema)


def allocate_plainly() -> None:
    """Let requests for pinned memory have ordinary memory, where there is nothing to pin it for."""
    import torch

    if torch.accelerator.is_available():
        return
    for name in ALLOCATIONS:
        setattr(torch, name, _without_pinning(getattr(torch, name)))
    torch.Tensor.pin_memory = lambda self, *arguments, **options: self  # type: ignore[method-assign]


def _without_pinning(allocate: Callable[..., Any]) -> Callable[..., Any]:
    def plain(*arguments: Any, pin_memory: bool = False, **options: Any) -> Any:
        return allocate(*arguments, **options)

    return plain


sys.meta_path.insert(0, Before("torchvision", declare_operators))
sys.meta_path.insert(0, Before("sglang.srt.lora.layers", allocate_plainly))
