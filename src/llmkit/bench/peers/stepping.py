"""A trainer's side of a benchmark: it takes as many steps as it is asked for and waits, in the middle of its own loop.

It needs nothing but Python, so that it also runs in the environment of another library.
"""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Stepper:
    """Stands at the end of every step of a trainer and lets it go on when the benchmark says so.

    Requests come in on standard input, `{"do": "steps", "count": 3}`; the answer is a list of what was measured at
    each step.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
        self._steps: list[dict[str, float]] = []
        self._left = 0
        self._wall = self._cpu = 0.0

    def run(self, train: Callable[[dict[str, Any]], None]) -> None:
        """Take the settings from the command line and train until standard input ends.

        Args:
            train: calls `finish_step` at the end of each step. Its imports are not part of what it is measured at: it
                calls `begin` after them.
        """
        settings = json.loads(sys.argv[1])
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, settings["cores"])
        try:
            train(settings)
        except Exception as error:
            self._answer({"error": f"{type(error).__name__}: {error}"})
            raise

    def begin(self) -> None:
        """Say that everything is imported, and wait to be asked for steps."""
        self._answer({"start_memory_bytes": peak_memory_bytes()})
        self._wait()

    def finish_step(self, **measured: float) -> None:
        """Take down a step, with its seconds by the clock and of this process's own; wait when it was the last one."""
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self._steps.append({"seconds": wall, "cpu_seconds": cpu, **measured})
        self._left -= 1
        if self._left == 0:
            self._answer({"steps": self._steps, "peak_memory_bytes": peak_memory_bytes()})
            self._steps = []
            self._wait()
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _wait(self) -> None:
        line = sys.stdin.readline()
        if not line:
            os._exit(0)  # nothing of this run is to be kept
        self._left = json.loads(line)["count"]
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.write(json.dumps(answer) + "\n")
        self._answers.flush()


def peak_memory_bytes() -> int:
    """Most memory that this process has held at one time."""
    # On Linux `ru_maxrss` begins with what the process that started this one held.
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"^VmHWM:\s*(\d+) kB$", status.read_text(), re.MULTILINE)[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
