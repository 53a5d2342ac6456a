"""A process that works on chunks: this process's end of it, and what runs in it."""

import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from llmkit.errors import TrainingError

EXIT_SECONDS = 5
"""How long a process that has closed its connection may take to end."""


@dataclass(frozen=True)
class Failure:
    """What a process sends in place of a result: the exception and its trace."""

    error: BaseException
    trace: str


class EncodeProcess:
    """One spawned process with the tools to encode; chunks go in and results come out in the same order.

    It is spawned, not forked: a fork of a process with the threads of torch and tokenizers may hang. It ends with this
    process, however that ends.
    """

    def __init__(self, work: Callable[..., Any], tools: bytes) -> None:
        """Start it.

        Args:
            work: called with a chunk and the tools.
            tools: pickled tuple, unpickled once in the process.
        """
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, work, tools), name="llmkit-encode", daemon=True)
        with _interrupts_held_back():
            self._process.start()
        # With the last copy of its end closed, reading from a process that died ends instead of waiting.
        theirs.close()

    def send(self, chunk: bytes) -> None:
        """Give it a pickled chunk; it takes chunks in while it works."""
        try:
            self._connection.send_bytes(chunk)
        except (BrokenPipeError, ConnectionResetError):
            raise self._died() from None

    def receive(self) -> Any:
        """The result of the chunk that was given first among those without a result.

        Raises:
            TrainingError: the process died.
            Exception: what `work` raised, with its trace there as a note.
        """
        try:
            received = self._connection.recv_bytes()
        except (EOFError, ConnectionResetError):
            raise self._died() from None
        result = pickle.loads(received)
        if isinstance(result, Failure):
            result.error.add_note(f"In a tokenizing process:\n{result.trace}")
            raise result.error
        return result

    def close(self) -> None:
        """End it at once; nothing that it holds is worth waiting for."""
        self._connection.close()
        self._process.kill()
        self._process.join()
        self._process.close()

    def _died(self) -> TrainingError:
        self._process.join(EXIT_SECONDS)
        code = self._process.exitcode
        how = f"with exit code {code}"
        if code is not None and code < 0:
            how = f"by {signal.Signals(-code).name}"
        why = " (the system ends processes so when memory runs out)" if code == -signal.SIGKILL else ""
        return TrainingError(
            f"A tokenizing process was ended {how}{why}. Use fewer of them, or none: --set data.num_workers=0"
        )


def _serve(connection: Connection, work: Callable[..., Any], tools: bytes) -> None:
    """What runs in the process: work on chunks until the other end is closed."""
    # The processes share the cores; threads inside each would only get in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    chunks: SimpleQueue[bytes] = SimpleQueue()
    reader = threading.Thread(target=_take_in, args=(connection, chunks), daemon=True)
    reader.start()
    try:
        unpickled = pickle.loads(tools)
        while True:
            result = work(pickle.loads(chunks.get()), *unpickled)
            connection.send_bytes(pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
    except BaseException as error:  # noqa: BLE001 - raised again in the process that waits for the result
        with suppress(BrokenPipeError, ConnectionResetError):  # nobody waits any more
            connection.send_bytes(_dump_failure(error))
    # Ending here, with chunks unread, would reset the connection and could lose what was just sent.
    reader.join()


def _take_in(connection: Connection, chunks: SimpleQueue[bytes]) -> None:
    """Take chunks in, so that sending one never waits for the work on another; end with the other end."""
    try:
        while True:
            chunks.put(connection.recv_bytes())
    except (EOFError, OSError):
        os._exit(0)


def _dump_failure(error: BaseException) -> bytes:
    trace = traceback.format_exc()
    try:
        dumped = pickle.dumps(Failure(error, trace))
        pickle.loads(dumped)
    except Exception:  # noqa: BLE001 - a third party's exception may fail in any way when it is pickled
        dumped = pickle.dumps(Failure(RuntimeError(f"{type(error).__name__}: {error}"), trace))
    return dumped


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Start processes that Ctrl-C does not reach: this one ends them."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)
