"""Ctrl-C and SIGTERM: finish the step, save, and only then stop."""

import contextlib
import os
import shlex
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

from llmkit.distributed.place import is_main
from llmkit.errors import RunInterrupted
from llmkit.runs.run_directory import RunDirectory, spoken

SAME_SIGNAL_SECONDS = 0.2
"""Signals closer together than this count as one: a process group and `timeout` deliver theirs twice."""


class Interruption:
    """True once the user, or whoever runs the machine, has asked to stop.

    with Interruption() as interrupted:
        for step in steps:
            train(step)
            if interrupted:
                save(step)
                raise interrupted.stop(step, directory)

    The first SIGINT or SIGTERM sets the flag. A second SIGINT raises KeyboardInterrupt at once; a second SIGTERM
    changes nothing. Outside the main thread, where Python takes no signals, the flag stays false.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds."""
        self._clock = clock
        self._signal: signal.Signals | None = None
        self._first_at = 0.0
        self._former: dict[signal.Signals, Any] = {}

    def __bool__(self) -> bool:
        return self._signal is not None

    def stop(self, step: int, directory: RunDirectory) -> RunInterrupted:
        """The exception to raise once `step` is saved in `directory`."""
        return RunInterrupted(
            f"Interrupted after step {step}; the run is saved. Go on with: "
            f"llmkit {spoken(directory.command)} --resume --output-dir {shlex.quote(str(directory.path))}"
        )

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._signal is None:
            self._signal = signal.Signals(number)
            self._first_at = self._clock()
            say(f"{self._signal.name}: finishing this step, then saving. Ctrl-C again stops at once, unsaved.")
        elif number == signal.SIGINT and self._clock() - self._first_at > SAME_SIGNAL_SECONDS:
            raise KeyboardInterrupt


def say(line: str) -> None:
    """Write a line to standard error from inside a signal handler."""
    if not is_main():
        return
    # `print` may have been interrupted half-way itself, and its buffer must not be entered twice.
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
