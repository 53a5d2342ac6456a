"""Directories for the files of weights: there is room, and they are gone afterwards."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from llmkit.disk import free_bytes
from llmkit.errors import EngineError
from llmkit.formatting import format_bytes
from llmkit.machine import memory

SHARED_MEMORY = Path("/dev/shm")
PREFIX = "llmkit-weights-"
LOCK = ".lock"
"""Held by the process that a directory belongs to, however that process ends."""
YOUNG_SECONDS = 600.0
SPARE = 64 << 20
"""Bytes to leave free on a file system, and in memory."""


class WeightsPlace:
    """A directory of its own for one update after another."""

    def __init__(self, parent: Path | None, *, in_memory: bool) -> None:
        """
        Args:
            parent: where it is made; None is the directory for temporary files.
            in_memory: whether `parent` is a file system in memory, so that its files take that.
        """
        self._parent = parent
        self._in_memory = in_memory
        self._path: Path | None = None
        self._lock: int | None = None

    @property
    def path(self) -> Path:
        """The directory; there is one after `renew`."""
        assert self._path is not None
        return self._path

    def check_room(self, num_bytes: int) -> None:
        """Raise unless so many bytes fit beside what is there; files of an update before this one give way."""
        where = self._path or self._parent or Path(tempfile.gettempdir())
        free = room(where, in_memory=self._in_memory) + (size_of(self._path) if self._path else 0)
        if num_bytes > free:
            raise EngineError(
                f"sending weights: they take {format_bytes(num_bytes)}, and {where} has room for "
                f"{format_bytes(max(free, 0))}; "
                + (
                    "use engine.sync.transport=disk, or make /dev/shm larger"
                    if self._in_memory
                    else "make room, or name another place with engine.sync.directory"
                )
            )

    def renew(self) -> Path:
        """The directory, empty.

        Raises:
            EngineError: it cannot be made.
        """
        self.remove()
        try:
            if self._parent is not None:
                self._parent.mkdir(parents=True, exist_ok=True)
            remove_forgotten(self._parent or Path(tempfile.gettempdir()))
            self._path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self._parent))
            self._lock = _locked(self._path)
            # Servers may run as another user.
            self._path.chmod(0o755)
        except OSError as error:
            raise EngineError(f"sending weights: no directory can be made in {self._parent}: {error}") from error
        return self._path

    def remove(self) -> None:
        """Remove the directory with all that is in it."""
        if self._path is not None:
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def remove_forgotten(parent: Path) -> None:
    """Remove directories of processes that were killed: files in memory would take it until the machine restarts."""
    for path in parent.glob(f"{PREFIX}*"):
        # Those of other users stay, and so does one that another process removes at this moment.
        with suppress(OSError):
            has_lock = (path / LOCK).exists()
            if not has_lock and time.time() - path.stat().st_mtime < YOUNG_SECONDS:
                continue  # its process may be about to lock it
            os.close(_locked(path))
            shutil.rmtree(path)


def _locked(path: Path) -> int:
    """A file descriptor that holds the lock of a directory until it is closed, or its process ends.

    Raises:
        OSError: another process holds it, or the directory is somebody else's.
    """
    handle = os.open(path / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def room(where: Path, *, in_memory: bool) -> int:
    """Bytes that may be written there."""
    free = free_bytes(where)
    available = memory()["available"] if in_memory else None
    return (free if available is None else min(free, available)) - SPARE


def size_of(path: Path) -> int:
    """Bytes of the files in a directory."""
    return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
