"""Compiled loops for training on a CPU. What they do not take goes PyTorch's own way, to the same numbers."""

import ctypes
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.compiled import CompileError, load_compiled
from llmkit.terminal import note

SOURCE = Path(__file__).parent / "training.cpp"
FLAGS = (
    "-std=c++20", "-O3", "-march=native", "-fPIC", "-shared", "-w",
    # Loops whose sums may be taken in any order say so themselves; infinities and NaN stay what they are.
    "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
NORM_TOKENS = 64
"""As in `norms.h`."""


@functools.cache
def library() -> ctypes.CDLL | None:
    """The loops; None where they cannot be compiled, which is told once."""
    try:
        loaded = load_compiled("training", SOURCE, FLAGS)
        # Threads of its own would fight with PyTorch's for the cores.
        loaded.use_threads_of(ctypes.cast(_fork(), ctypes.c_void_p))
    except CompileError as error:
        note(f"this CPU computes more slowly than it could: {error}")
        return None
    return loaded


def _fork() -> Any:
    """What starts work on PyTorch's threads.

    Raises:
        CompileError: nobody but PyTorch can.
    """
    # PyTorch loads its OpenMP library for everyone.
    fork = getattr(ctypes.CDLL(None), "GOMP_parallel", None)
    if fork is None:
        raise CompileError("this build of PyTorch has no OpenMP library that compiled loops can share")
    return fork


def takes(*tensors: Tensor) -> bool:
    """Whether the compiled loops take tensors like these: plain ones on the CPU, of one type that they know.

    Parts of a divided model, tensors of a tracer and the like have classes of their own.
    """
    kind = tensors[0].dtype
    return (
        kind in NAMES
        and all(is_plain(one) and one.dtype == kind for one in tensors)
        and not torch.compiler.is_compiling()
        and library() is not None
    )


def is_plain(tensor: Tensor) -> bool:
    """Whether it lies in this process's memory as a whole."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu"


def is_matrix(weight: Tensor | None) -> bool:
    """Whether it is a plain matrix of floats with something in it, which a layer can be tried with."""
    return weight is not None and is_plain(weight) and weight.ndim == 2 and weight.numel() > 0 and weight.dtype in NAMES


def call(name: str, dtype: torch.dtype, *arguments: Any) -> None:
    """Run a loop.

    Args:
        name: of the loop.
        dtype: of its tensors.
        arguments: structures, numbers, tensors and None, as C++ takes them; tensors are dense.
    """
    loaded = library()
    assert loaded is not None, "`takes` was asked before"
    getattr(loaded, f"{NAMES[dtype]}_{name}")(*map(_as_argument, arguments))


def address(tensor: Tensor | None) -> int | None:
    """Where a dense tensor lies."""
    if tensor is None:
        return None
    assert tensor.is_contiguous(), "C++ counts on dense tensors"
    return tensor.data_ptr()


def _as_argument(value: Any) -> Any:
    if isinstance(value, Tensor):
        return ctypes.c_void_p(address(value))
    if isinstance(value, ctypes.Structure):
        return ctypes.byref(value)
    return value if not isinstance(value, int) else ctypes.c_int64(value)
