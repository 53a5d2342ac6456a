"""The C++ step as a shared library: compiled with the system's compiler when it is first asked for, then cached."""

import ctypes
import functools
import platform
from pathlib import Path

from llmkit.compiled import CompileError, load_compiled, processor_features
from llmkit.engines.inference.native.cpu.structures import (
    Angles,
    DrawsView,
    LayerAdapter,
    Shape,
    StepView,
    Weights,
)
from llmkit.errors import EngineError

SOURCE = Path(__file__).parent / "kernels" / "model.cpp"
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-w")


class BuildError(EngineError):
    """There is no compiler, or it does not compile the step; the message says which in one line."""


@functools.cache
def load(architecture: str = "native") -> ctypes.CDLL:
    """The compiled library.

    Args:
        architecture: what the compiler's `-march` gets.
    Raises:
        BuildError: it cannot be compiled here, or not be kept.
    """
    if platform.machine() not in ("x86_64", "AMD64"):
        raise BuildError(f"the processor is a {platform.machine()}; the C++ step is written for x86-64")
    if architecture == "native" and not {"avx2", "fma"} <= set(processor_features()):
        raise BuildError("the processor has no AVX2 with FMA")
    try:
        return _declare(load_compiled("step", SOURCE, (*FLAGS, f"-march={architecture}")))
    except CompileError as error:
        raise BuildError(str(error)) from error


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    functions = {
        "llmkit_create": (pointer, [ctypes.POINTER(Shape), number]),
        "llmkit_destroy": (None, [pointer]),
        "llmkit_error": (ctypes.c_char_p, [pointer]),
        "llmkit_bytes_per_block": (ctypes.c_int64, [pointer]),
        "llmkit_allocate": (number, [pointer, number]),
        "llmkit_copy_block": (number, [pointer, number, number]),
        "llmkit_set_weights": (number, [pointer, ctypes.POINTER(Weights)]),
        "llmkit_set_angles": (None, [pointer, ctypes.POINTER(Angles)]),
        "llmkit_set_adapter": (None, [pointer, number, ctypes.POINTER(LayerAdapter)]),
        "llmkit_draw": (number, [pointer, ctypes.POINTER(DrawsView)]),
        "llmkit_forward": (number, [pointer, ctypes.POINTER(StepView)]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
