"""The C++ step as a shared library: compiled with the system's compiler when it is first asked for, then cached."""

import ctypes
import functools
import hashlib
import platform
import re
import shlex
import shutil
import subprocess
from pathlib import Path

from llmkit import machine
from llmkit.cache import cached_directory, fingerprint, remove_unused
from llmkit.engines.inference.native.cpu.structures import DrawsView, LayerAdapter, Shape, StepView, Weights
from llmkit.errors import EngineError, TrainingError

SOURCES = Path(__file__).parent / "kernels"
FLAGS = ("-std=c++20", "-O3", "-fPIC", "-shared", "-pthread", "-w")
LIBRARIES = ("-lstdc++",)
"""CXX may name a C compiler, which does not link the library of C++ by itself."""
COMPILE_SECONDS = 300
KEPT_DAYS = 60
"""How long libraries of other versions, compilers and processors stay."""


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
    if architecture == "native" and not {"avx2", "fma"} <= set(_processor_features()):
        raise BuildError("the processor has no AVX2 with FMA")
    compiler = _compiler()
    flags = (*FLAGS, f"-march={architecture}")
    try:
        directory = cached_directory(
            f"cpu-{_key(compiler, flags)}",
            lambda target: _compile(compiler, flags, target / "step.so"),
            group="kernels",
            is_whole=lambda target: (target / "step.so").is_file(),
        )
        remove_unused("kernels", KEPT_DAYS)
        return _declare(ctypes.CDLL(str(directory / "step.so")))
    except TrainingError as error:
        raise BuildError(str(error)) from error
    except OSError as error:
        raise BuildError(f"the compiled step cannot be loaded: {error}") from error


def _compiler() -> list[str]:
    """The command that compiles C++: `$CXX`, or the first of the usual ones that is there."""
    command = shlex.split(machine.compiler_command() or "")
    if not command or shutil.which(command[0]) is None:
        raise BuildError(
            f"there is no C++ compiler ({', '.join(machine.COMPILERS)}); install one, or name it in the variable CXX"
        )
    return command


def _key(compiler: list[str], flags: tuple[str, ...]) -> str:
    """What the compiled code depends on: sources, compiler, flags, and the processor that `native` stands for."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=30).stdout
    parts = [fingerprint(sorted(SOURCES.iterdir())), version, *compiler, *flags, *LIBRARIES, *_processor_features()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compile(compiler: list[str], flags: tuple[str, ...], target: Path) -> None:
    command = [*compiler, *flags, str(SOURCES / "model.cpp"), "-o", str(target), *LIBRARIES]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise BuildError(f"{compiler[0]} did not compile the step within {COMPILE_SECONDS} seconds") from None
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise BuildError(f"{compiler[0]} does not compile the step: {faults[0] if faults else 'it gives no reason'}")


def _processor_features() -> list[str]:
    """Everything that the processor says it can do."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    found = re.search(r"^flags\s*:\s*(.+)$", text, re.MULTILINE)
    return sorted(found.group(1).split()) if found else []


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int32
    functions = {
        "llmkit_create": (pointer, [ctypes.POINTER(Shape), number]),
        "llmkit_destroy": (None, [pointer]),
        "llmkit_error": (ctypes.c_char_p, [pointer]),
        "llmkit_bytes_per_block": (ctypes.c_int64, [pointer]),
        "llmkit_allocate": (number, [pointer, number]),
        "llmkit_copy_block": (number, [pointer, number, number]),
        "llmkit_set_weights": (None, [pointer, ctypes.POINTER(Weights)]),
        "llmkit_set_adapter": (None, [pointer, number, ctypes.POINTER(LayerAdapter)]),
        "llmkit_draw": (number, [pointer, ctypes.POINTER(DrawsView)]),
        "llmkit_forward": (number, [pointer, ctypes.POINTER(StepView)]),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
