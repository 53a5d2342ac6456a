"""What this computer has to give: processor, memory, disks, compiler, accelerators. Sizes are bytes."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from llmkit.disk import free_bytes

FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
"""Instruction sets that decide how fast matrix products are."""
COMPILERS = ("c++", "g++", "clang++")
SAMPLE_SECONDS = 0.25
GPU_SECONDS = 30.0
DEVICES = Path("/dev")


def processor_flags() -> list[str]:
    """Those of `FLAGS` that the processor has; empty where the system does not tell."""
    found = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    words = set(found.group(1).split()) if found else set()
    return [flag for flag in FLAGS if flag in words]


def memory() -> dict[str, int | None]:
    """Total and available memory, and the limit of this container if it has one."""
    table = dict(re.findall(r"^(\w+):\s*(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return {
        "total": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "available": int(table["MemAvailable"]) * 1024 if "MemAvailable" in table else None,
        "container_limit": int(limit) if limit.isdecimal() else None,
    }


def busy_cores() -> float | None:
    """Cores that are at work at this moment, while this process waits; None where the system does not tell."""
    before = _busy_ticks()
    time.sleep(SAMPLE_SECONDS)
    after = _busy_ticks()
    if before is None or after is None:
        return None
    return max(0.0, (after - before) / os.sysconf("SC_CLK_TCK") / SAMPLE_SECONDS)


def peak_memory_bytes() -> int:
    """Most memory that this process has held at one time."""
    import resource
    import sys

    # On Linux `ru_maxrss` begins with what the process that started this one held.
    found = re.search(r"^VmHWM:\s*(\d+) kB$", _read("/proc/self/status"), re.MULTILINE)
    if found:
        return int(found.group(1)) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def disk(path: Path) -> dict[str, Any]:
    """Free space where a directory is or would be, and whether it can be written."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    return {"path": str(path), "free": free_bytes(path), "writable": os.access(there, os.W_OK)}


def compiler_command() -> str | None:
    """What compiles C++: `$CXX`, or the first of `COMPILERS` that is there; None when there is none."""
    return os.environ.get("CXX") or next((name for name in COMPILERS if shutil.which(name)), None)


def compiler() -> str | None:
    """First line of a C++ compiler's `--version`; None when there is none."""
    command = compiler_command()
    if command is None:
        return None
    try:
        done = subprocess.run([command, "--version"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.partition("\n")[0]


def torch_devices() -> dict[str, Any]:
    """PyTorch's threads and accelerators.

    Raises:
        ImportError: PyTorch cannot be imported.
    """
    import torch

    gpus = [
        {
            "name": properties.name,
            "memory": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
        }
        for properties in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return {
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
    }


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def nvidia_gpus() -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES knows the GPUs of this machine that the process may use, without PyTorch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",") if name.strip()]
        return [] if "-1" in names else names
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):  # a driver that does not answer: there is no GPU to work with
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip().isdecimal()]


def ascend_npus() -> list[str]:
    """Numbers of the Ascend NPUs of this machine."""
    visible = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip()]
    found = (path.name.removeprefix("davinci") for path in DEVICES.glob("davinci*"))
    return sorted((number for number in found if number.isdecimal()), key=int)


def _busy_ticks() -> int | None:
    """Clock ticks that all cores together have spent on processes since the start of the system."""
    fields = _read("/proc/stat").partition("\n")[0].split()
    if len(fields) < 5 or fields[0] != "cpu":
        return None
    user, nice, system = map(int, fields[1:4])
    return user + nice + system


def _read(path: str) -> str:
    """A file of the system; empty where it does not exist."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
