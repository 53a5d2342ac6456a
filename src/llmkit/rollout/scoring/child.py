"""What runs in a child process: it is told what to do it with, then does one job after another.

The process is a fresh interpreter with nothing imported. Frames go both ways over a socket: a length of 4 bytes, then a
pickle; both ends are llmkit's own.
"""

import ctypes
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from queue import SimpleQueue
from typing import Any

HEADER_BYTES = 4
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Setup:
    """What a child begins with.

    Attributes:
        path: where it looks for modules.
        target: `module:function` that is called with `arguments` and returns the function that does the jobs.
        arguments: a tuple; pickled on its own, since it can be unpickled only with the right path.
        max_memory: bytes of address space; 0 has no limit.
    """

    path: list[str]
    target: str
    arguments: bytes
    max_memory: int


@dataclass(frozen=True)
class Failure:
    """What comes back in place of a result: the exception, with its trace there as a note."""

    error: BaseException


def main(descriptor: int, parent: int) -> None:
    """Serve the socket until its other end is closed.

    Args:
        descriptor: of the socket.
        parent: number of the process at its other end.
    """
    _end_with(parent)
    connection = socket.socket(fileno=descriptor)
    frames: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_take_in, args=(connection, frames), daemon=True).start()
    try:
        work = _begin(pickle.loads(frames.get()))
    except BaseException as error:  # noqa: BLE001 - foreign code; raised again at the other end
        _send(connection, Failure(_told(error)))
        return
    _send(connection, None)
    while True:
        job = frames.get()
        try:
            result = work(*pickle.loads(job))
        except BaseException as error:  # noqa: BLE001 - as above
            result = Failure(_told(error))
        _send(connection, result)


def _begin(setup: Setup) -> Callable[..., Any]:
    sys.path[:] = setup.path
    # Half a dozen of these share the cores with the run.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if setup.max_memory and sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (setup.max_memory, setup.max_memory))
    module, _, name = setup.target.partition(":")
    return getattr(import_module(module), name)(*pickle.loads(setup.arguments))


def _end_with(parent: int) -> None:
    """Be killed when the parent dies, also in the midst of a job."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before
        os._exit(0)


def _take_in(connection: socket.socket, frames: "SimpleQueue[bytes]") -> None:
    """Read frames while a job runs, so that the other end's death is seen."""
    while True:
        header = _read(connection, HEADER_BYTES)
        frames.put(_read(connection, int.from_bytes(header)))


def _read(connection: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        try:
            received = connection.recv(min(size - len(data), 1 << 20))
        except OSError:
            received = b""
        if not received:
            os._exit(0)
        data += received
    return bytes(data)


def _send(connection: socket.socket, value: Any) -> None:
    try:
        dumped = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    except Exception as error:  # noqa: BLE001 - what pickle raises depends on the value
        what = f"the result cannot be sent to the run: {type(error).__name__}: {error}"
        dumped = pickle.dumps(Failure(RuntimeError(what)))
    connection.sendall(len(dumped).to_bytes(HEADER_BYTES) + dumped)


def _told(error: BaseException) -> BaseException:
    """The exception as it can be pickled."""
    error.add_note(f"In a child process:\n{''.join(traceback.format_exception(error)).rstrip()}")
    told = RuntimeError(f"{type(error).__name__}: {error}")
    if not isinstance(error, Exception):  # SystemExit must not end the run
        return told
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # noqa: BLE001 - a third party's exception may fail in any way when it is pickled
        return told
    return error


def command(descriptor: int) -> list[str]:
    """The command line of a child of this process."""
    package = str(Path(__file__).resolve().parents[3])
    script = f"import sys; sys.path.append({package!r}); from {__name__} import main; main({descriptor}, {os.getpid()})"
    return [sys.executable, "-P", "-c", script]
