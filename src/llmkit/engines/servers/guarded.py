"""A server's process behind a guard: when llmkit ends, however it ends, so does everything that the server started."""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

from llmkit.engines.servers import guard
from llmkit.engines.servers.command import Command
from llmkit.errors import EngineError

GUARD_SECONDS = guard.KILL_SECONDS + 10.0
"""What the guard may take beyond the server's own time to end."""
MARK = "LLMKIT_SERVER"
"""Variable by which processes of a server are found whose guard was killed."""


class GuardedProcess:
    """Runs a command; what it prints goes to the end of a file."""

    def __init__(self, command: Command, log: Path, stop_seconds: float) -> None:
        """
        Args:
            stop_seconds: time that the server has to end by itself.
        Raises:
            EngineError: the log cannot be written.
        """
        self._stop_seconds = stop_seconds
        self._mark = secrets.token_hex(8)
        try:
            for path, content in command.files.items():
                path.write_text(content, encoding="utf-8")
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(stop_seconds), "--",
                     *command.arguments],
                    stdin=subprocess.PIPE,
                    stdout=output,
                    stderr=output,
                    env=command.environment() | {MARK: self._mark},
                    start_new_session=True,  # a Ctrl-C in the terminal is for llmkit, which ends its servers in order
                )  # fmt: skip
        except OSError as error:
            raise EngineError(
                f"{log}: {error.strerror}; set engine.log_dir to a directory that can be written"
            ) from error

    @property
    def pid(self) -> int:
        """Process id of the guard."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """The server's exit code, 128 + number for a signal, once nothing of it is left; None while it runs."""
        code = self._process.poll()
        if code is not None and code < 0:  # somebody killed the guard; the server went with it
            kill_marked(self._mark)
            return 128 - code
        return code

    def ask_to_stop(self) -> None:
        """Have the guard stop the server; returns at once."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended already
            self._process.stdin.write(b"s")
            self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until nothing of the server is left, after `ask_to_stop`."""
        try:
            self._process.wait(self._stop_seconds + GUARD_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            kill_marked(self._mark)
        finally:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()


def kill_marked(mark: str) -> None:
    """Kill what a server has started, after its guard could not: processes that have the mark in their environment."""
    wanted = f"{MARK}={mark}".encode()
    end = time.monotonic() + guard.KILL_SECONDS
    while (alive := [pid for pid in processes() if wanted in environment_of(pid)]) and time.monotonic() < end:
        for pid in alive:
            guard.send(pid, signal.SIGKILL)
        time.sleep(0.02)


def processes() -> list[int]:
    """All of this machine, from /proc; none where there is no such thing."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()] if os.path.isdir("/proc") else []


def environment_of(pid: int) -> list[bytes]:
    """What a process was started with; nothing of one that has ended, or is somebody else's."""
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def describe_exit(code: int) -> str:
    """`exit code 1`, or `SIGKILL` for 137: out of memory, or somebody killed it."""
    if code <= 128:
        return f"exit code {code}"
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return f"exit code {code}"
    return f"{name}, which the system sends when memory runs out" if name == "SIGKILL" else name
