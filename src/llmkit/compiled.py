"""C++ of ours as shared libraries: compiled with the system's compiler when first asked for, then cached."""

import ctypes
import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from llmkit import machine
from llmkit.cache import cached_directory, fingerprint, remove_unused
from llmkit.errors import LLMKitError, TrainingError

LIBRARIES = ("-lstdc++",)
"""CXX may name a C compiler, which does not link the library of C++ by itself."""
COMPILE_SECONDS = 300
KEPT_DAYS = 60
"""How long libraries of other versions, compilers and processors stay."""
LIBRARY = "compiled.so"


class CompileError(LLMKitError):
    """There is no compiler, or it does not compile the code; the message says which in one line."""


def load_compiled(name: str, source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library that a file of C++ compiles to.

    Args:
        name: of the code, for the cache and for messages.
        source: the file to compile; it may include the others of its directory.
        flags: of the compiler.

    Raises:
        CompileError: it cannot be compiled here, or not be kept or loaded.
    """
    compiler = _compiler()
    try:
        directory = cached_directory(
            f"{name}-{_key(compiler, source, flags)}",
            lambda target: _compile(name, [*compiler, *flags, str(source), "-o", str(target / LIBRARY), *LIBRARIES]),
            group="kernels",
            is_whole=lambda target: (target / LIBRARY).is_file(),
        )
        remove_unused("kernels", KEPT_DAYS)
        return ctypes.CDLL(str(directory / LIBRARY))
    except TrainingError as error:
        raise CompileError(str(error)) from error
    except OSError as error:
        raise CompileError(f"the compiled {name} cannot be loaded: {error}") from error


def processor_features() -> list[str]:
    """Everything that the processor says it can do."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", text, re.MULTILINE)
    return sorted(found.group(1).split()) if found else []


def _compiler() -> list[str]:
    """The command that compiles C++: `$CXX`, or the first of the usual ones that is there."""
    command = shlex.split(machine.compiler_command() or "")
    if not command or shutil.which(command[0]) is None:
        raise CompileError(
            f"there is no C++ compiler ({', '.join(machine.COMPILERS)}); install one, or name it in the variable CXX"
        )
    return command


def _key(compiler: list[str], source: Path, flags: Sequence[str]) -> str:
    """What the compiled code depends on: sources, compiler, flags, and the processor that `native` stands for."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=30).stdout
    sources = sorted(path for path in source.parent.iterdir() if path.suffix in (".h", ".cpp"))
    parts = [fingerprint(sources), version, *compiler, *flags, *LIBRARIES, *processor_features()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _compile(name: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise CompileError(f"{command[0]} did not compile the {name} within {COMPILE_SECONDS} seconds") from None
    if done.returncode:
        faults = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise CompileError(f"{command[0]} does not compile the {name}: {faults[0] if faults else 'it gives no reason'}")
