"""The limits of the machine that a benchmark runs on, and what other processes take of it meanwhile."""

import os
import time
from collections.abc import Callable
from pathlib import Path

NOISY = 0.1
"""Share of the machine that others may use before a run counts as noisy."""
MATRIX = 1024
COPIED_BYTES = 128 << 20
SECONDS_PER_LIMIT = 0.4


def usable_cores() -> list[int]:
    """Numbers of the cores that this process may use, which inside a container can be fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def gemm_gflops() -> float:
    """Billions of floating-point operations per second of a float32 matrix product, all cores together."""
    import numpy as np

    left, right = (np.random.default_rng(seed).random((MATRIX, MATRIX), dtype=np.float32) for seed in (0, 1))
    product = np.empty_like(left)
    return 2 * MATRIX**3 / best_seconds(lambda: np.matmul(left, right, out=product)) / 1e9


def memory_gbps() -> float:
    """Gigabytes read and written per second by one core that copies."""
    import numpy as np

    source = np.ones(COPIED_BYTES, dtype=np.uint8)
    target = np.empty_like(source)
    return 2 * COPIED_BYTES / best_seconds(lambda: np.copyto(target, source)) / 1e9


class ForeignLoad:
    """Share of all cores' time that processes other than this one and its children use, since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def share(self) -> float | None:
        """From 0 to 1; None where the system does not tell."""
        busy, own = _busy_seconds(), _own_seconds()
        if busy is None or own is None or self._busy is None or self._own is None:
            return None
        elapsed = time.monotonic() - self._start
        foreign = (busy - self._busy) - (own - self._own)
        return min(1.0, max(0.0, foreign / elapsed / (os.cpu_count() or 1)))


def held_memory_bytes() -> int | None:
    """Memory that this process holds now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds(process: int) -> float | None:
    """What one process has spent so far, all its threads together; None where the system does not tell."""
    found = _ticks(Path(f"/proc/{process}"))
    return None if found is None else sum(found[1:3]) / os.sysconf("SC_CLK_TCK")


def best_seconds(work: Callable[[], object]) -> float:
    """The least of several runs for `SECONDS_PER_LIMIT`, after one that does not count."""
    work()
    best = float("inf")
    deadline = time.perf_counter() + SECONDS_PER_LIMIT
    while time.perf_counter() < deadline:
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def _busy_seconds() -> float | None:
    """What all cores together have spent since the start of the system on processes, interrupts and other guests."""
    try:
        fields = Path("/proc/stat").read_text().partition("\n")[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_seconds() -> float | None:
    """What this process and all that it started have spent, those that have ended included."""
    try:
        table = {int(path.name): _times(path) for path in Path("/proc").iterdir() if path.name.isdecimal()}
    except OSError:
        return None
    parents = {process: found[0] for process, found in table.items() if found}
    own = {os.getpid()}
    while more := {process for process, parent in parents.items() if parent in own} - own:
        own |= more
    return sum(found[1] for process in own if (found := table.get(process))) / os.sysconf("SC_CLK_TCK")


def _times(process: Path) -> tuple[int, int] | None:
    """A process's parent and the clock ticks that it and its ended children have spent; None when it has gone."""
    found = _ticks(process)
    return None if found is None else (found[0], sum(found[1:]))


def _ticks(process: Path) -> tuple[int, ...] | None:
    """A process's parent, then the ticks that it spent itself and in the kernel, then those of its ended children."""
    try:
        # The name, in brackets, may hold spaces and brackets of its own.
        fields = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1]), *map(int, fields[11:15])
