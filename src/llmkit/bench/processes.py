"""Commands that are measured whole: time, processor time, and the most memory that they held."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llmkit.bench.setup import Setup
from llmkit.errors import BenchError

# A process's peak counts that of the one it was forked from, so that a small one has to start it.
PROGRAM = """
import json, os, resource, subprocess, sys, time
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, json.loads(sys.argv[1]))
start = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace")
seconds = time.perf_counter() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
print(json.dumps([done.returncode, done.stderr[-2000:], seconds, used.ru_utime + used.ru_stime, peak]))
"""


@dataclass(frozen=True)
class Usage:
    """What a command took, from its start to its end.

    Attributes:
        seconds: by the clock.
        cpu_seconds: of all its threads and processes.
        peak_memory_bytes: of its largest process, with what it had mapped of files.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int

    def metrics(self) -> dict[str, Any]:
        """By name."""
        return asdict(self)


def run_measured(name: str, arguments: Sequence[str], setup: Setup) -> Usage:
    """Run Python with some arguments on the benchmark's cores, until it ends.

    Args:
        name: of the contender, for errors.

    Raises:
        BenchError: it failed; says how.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(setup.cores)), "TMPDIR": str(setup.directory)}
    environment |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(setup.directory / "datasets"),
        "PYTHONSAFEPATH": "1",
    }
    line = [sys.executable, "-S", "-c", PROGRAM, json.dumps(list(setup.cores)), sys.executable, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    code, said, *figures = json.loads(done.stdout)
    if code:
        raise BenchError(f"{name}: exit code {code}: {said.strip()[-500:]}")
    return Usage(*figures)
