"""Stands between llmkit and a server's processes, so that none of them is left behind, whatever becomes of llmkit.

Run as a program with the standard library alone: `python -I -S guard.py PARENT_PID STOP_SECONDS -- PROGRAM ARGUMENT...`
Its standard input is held open by llmkit: `s` on it stops the server, its end means that llmkit has gone. The guard
ends with the server's exit code (128 + number for a signal), when no process of the server's tree is left.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
ORPHANED_SECONDS = 5.0
"""Time for an orderly end when llmkit has gone."""
KILL_SECONDS = 30.0
"""After it the guard gives up on a process that even SIGKILL does not end, such as one that waits for a dead disk."""
POLL_SECONDS = 1.0


def main() -> int:
    parent, stop_seconds, command = int(sys.argv[1]), float(sys.argv[2]), sys.argv[4:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # processes that lose their parent become ours, and stay in the tree
    wakeup = watch_signals()
    try:
        server = start(command)
    except OSError as error:
        say(f"{command[0]} cannot be started: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126
    watch = Watch(server, parent, wakeup)
    reason = watch.wait(None)
    if reason != "ended":
        send(server, signal.SIGTERM)
        seconds = stop_seconds if reason == "stop" else min(stop_seconds, ORPHANED_SECONDS)
        if watch.wait(time.monotonic() + seconds) != "ended":
            say(f"the server did not end within {seconds:g} s and is killed")
    left = kill_all(server)
    if left:
        say(f"processes {left} cannot be killed")
    code = reap(server) if watch.code is None else watch.code
    return 128 - code if code < 0 else code


def start(command: list[str]) -> int:
    """Start the server in a session of its own; it is killed if the guard is. Returns its process id."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    return process.pid


class Watch:
    """Waits for the first thing that matters: the server's end, llmkit's wish or llmkit's own end."""

    def __init__(self, server: int, parent: int, wakeup: int) -> None:
        self.code: int | None = None
        self._server = server
        self._parent = parent
        self._wakeup = wakeup
        self._poll = select.poll()
        self._poll.register(wakeup, select.POLLIN)
        self._poll.register(0, select.POLLIN | select.POLLHUP)
        self._is_asked = False

    def wait(self, end: float | None) -> str:
        """`ended`, `stop` or `orphaned`; `late` when it is `end` on the monotonic clock.

        A second call, after the server was told to stop, waits for its end alone.
        """
        while True:
            if self._has_ended():
                return "ended"
            if end is None and self._is_asked:
                return "stop"
            if end is None and os.getppid() != self._parent:
                return "orphaned"
            seconds = POLL_SECONDS if end is None else min(POLL_SECONDS, end - time.monotonic())
            if seconds <= 0:
                return "late"
            for handle, _ in self._poll.poll(seconds * 1000):
                if handle == self._wakeup:
                    numbers = os.read(handle, 512)
                    self._is_asked |= bool({signal.SIGTERM, signal.SIGINT} & set(numbers))
                elif not self._read_wish():
                    self._poll.unregister(0)
                    if end is None:
                        return "orphaned"
                    end = min(end, time.monotonic() + ORPHANED_SECONDS)

    def _read_wish(self) -> bool:
        """Whether llmkit still holds its end."""
        wish = os.read(0, 64)
        self._is_asked |= b"s" in wish
        return bool(wish)

    def _has_ended(self) -> bool:
        """Whether the server itself has; orphans of its tree are reaped on the way."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == self._server:
                self.code = os.waitstatus_to_exitcode(status)
            if pid == 0:
                return self.code is not None


def watch_signals() -> int:
    """Have SIGTERM, SIGINT and SIGCHLD arrive as bytes. Returns the descriptor to read."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda *_: None)
    return read


def kill_all(server: int) -> list[int]:
    """Kill every process below this one. Returns those that stay."""
    if not os.path.isdir("/proc"):  # then only those of the server's own group can be found
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(server, signal.SIGKILL)
    end = time.monotonic() + KILL_SECONDS
    while (alive := descendants()) and time.monotonic() < end:
        for pid in alive:
            send(pid, signal.SIGKILL)
        time.sleep(0.02)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
    return alive


def descendants() -> list[int]:
    """Living processes below this one, from /proc; empty where there is none."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not name.isdecimal():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                state, parent = file.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue  # it has ended meanwhile
        if state != b"Z" or int(parent) == os.getpid():
            children.setdefault(int(parent), []).append(int(name))
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def send(pid: int, number: int) -> None:
    """Send a signal to a process that may have gone."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def reap(pid: int) -> int:
    """Exit code of a child that was killed."""
    with contextlib.suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(pid, os.WNOHANG)[1])
    return -signal.SIGKILL


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2); nothing elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def say(text: str) -> None:
    """A line in the server's log."""
    print(f"llmkit: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # no clean-up: nothing is left to clean, and a Popen that was never waited for would complain
