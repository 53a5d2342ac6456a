"""The worker's side of a benchmark: requests come in on standard input, answers go out, one JSON object a line.

It needs nothing but Python, so that it also runs in the environment of another library.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any

Answer = Mapping[str, Any]


def serve(prepare: Callable[[dict[str, Any]], Mapping[str, Callable[[], Answer]]]) -> None:
    """Take the settings from the command line, prepare, and do what is asked until standard input ends.

    Args:
        prepare: makes of the settings what this worker can be asked to do. It is called on the cores that the worker
            was given, so what it imports starts no thread anywhere else.
    """
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no answer
    settings = json.loads(sys.argv[1])
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, settings["cores"])
    tasks = _answer(answers, lambda: prepare(settings), lambda tasks: {"ready": sorted(tasks)})
    for line in sys.stdin:
        _answer(answers, tasks[json.loads(line)["do"]], dict)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that `work` took, and what it gave."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


class Stopwatch:
    """Runs from when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter(), time.process_time()

    def read(self) -> dict[str, float]:
        """`seconds` that have passed, and `cpu_seconds` that this process computed for, all threads together."""
        return {"seconds": time.perf_counter() - self._start[0], "cpu_seconds": time.process_time() - self._start[1]}


def _answer(answers: Any, work: Callable[[], Any], to_answer: Callable[[Any], Answer]) -> Any:
    """Do the work and write its answer; the error in place of it, before it ends the worker."""
    try:
        result = work()
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{os.path.basename(last.filename)}:{last.lineno}"
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error} ({place})"}) + "\n")
        answers.flush()
        raise
    answers.write(json.dumps(to_answer(result)) + "\n")
    answers.flush()
    return result
