"""One writer per run directory."""

import errno
import fcntl
import os
import socket
from pathlib import Path
from typing import Self

from llmkit.errors import CheckpointError
from llmkit.terminal import warn

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)

_held: set[int] = set()


def _close_in_child() -> None:
    # A forked worker that outlives a killed run would keep the run locked.
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_close_in_child)


class RunLock:
    """An exclusive claim on a file that ends with this process, however that ends.

    The kernel holds the claim (`flock`), so what a dead process left behind locks nobody out. The file says who holds
    it, for the message, and stays in place: removing it would let two processes lock two files of one name.
    """

    def __init__(self, path: Path) -> None:
        """Claim `path`.

        Raises:
            CheckpointError: another process holds it.
            OSError: the file cannot be made.
        """
        self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._handle, 200, 0).decode(errors="replace") or "another process"
            os.close(self._handle)
            raise CheckpointError(
                f"{path.parent}: {holder} is writing this run. Wait until it ends, or choose another --output-dir"
            ) from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                os.close(self._handle)
                raise
            warn(f"{path.parent}: this file system has no locks; make sure that no other run writes here")
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        _held.add(self._handle)

    def release(self) -> None:
        """Give the claim up. Releasing twice is allowed."""
        if self._handle is not None and self._handle in _held:
            os.ftruncate(self._handle, 0)
            _held.discard(self._handle)
            os.close(self._handle)
        self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()
