"""A file on this machine: read at any place or from front to back, and noticed when it changes meanwhile."""

import hashlib
import io
import os
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from llmkit.errors import DataError

Compression = Literal["gzip", "zstd"]
BLOCK = 1 << 20
EDGE = 1 << 16


class Stamp(NamedTuple):
    """What tells one state of a file from another without reading it."""

    size: int
    mtime_ns: int
    inode: int


class LocalFile:
    """A file that must stay as it was when this object was made. It holds nothing open and can be pickled.

    Attributes:
        path: where its bytes are.
        name: what messages and rows call it.
        compression: how its bytes are packed; None when they are the content.
        stamp: its state when it was found.
    """

    def __init__(self, path: Path, compression: Compression | None = None, name: str | None = None) -> None:
        """Look at the file.

        Raises:
            DataError: it is not there, or is a directory, a pipe or a device.
        """
        self.path = path
        self.name = name or str(path)
        self.compression: Compression | None = compression
        self.stamp = self._look()

    def check(self) -> None:
        """Make sure that the file is as it was.

        Raises:
            DataError: it changed, or is gone.
        """
        if self._look() != self.stamp:
            raise DataError(f"{self.name}: the file changed after it was opened; start again")

    def read(self, start: int, end: int) -> bytes:
        """Bytes `start` to `end` of the file as it is stored.

        Raises:
            DataError: it changed, is gone, or cannot be read.
        """
        self.check()
        try:
            return _handle(str(self.path), self.stamp).read(start, end - start)
        except OSError as error:
            raise unreadable(self.name, error) from None

    def open(self, offset: int = 0) -> BinaryIO:
        """The content from `offset` on, unpacked. Errors of reading it are told by `unreadable`.

        Raises:
            DataError: it changed, is gone, or cannot be read.
        """
        self.check()
        try:
            handle = _handle(str(self.path), self.stamp)
        except OSError as error:
            raise unreadable(self.name, error) from None
        if self.compression is None:
            return io.BufferedReader(_FromOffset(handle, offset), BLOCK)
        from llmkit.data.files.compression import unpacking

        stream = unpacking(io.BufferedReader(_FromOffset(handle, 0), BLOCK), self.compression)
        with reading(self):
            _skip(stream, offset, self.name)
        return stream

    def head(self, num_bytes: int = 4096) -> bytes:
        """The first bytes of the content, unpacked."""
        with self.open() as stream, reading(self):
            return stream.read(num_bytes)

    def mark(self) -> str:
        """A short name of the file's size and both of its ends, the same for a copy on another machine.

        Raises:
            DataError: the file changed, is gone, or cannot be read.
        """
        return self._named(_mark)

    def content_hash(self) -> str:
        """A name of the whole content as it is stored.

        Raises:
            DataError: the file changed, is gone, or cannot be read.
        """
        return self._named(_content_hash)

    def _named(self, work_out: Callable[[str, Stamp], str]) -> str:
        self.check()
        try:
            name = work_out(str(self.path), self.stamp)
        except OSError as error:
            raise unreadable(self.name, error) from None
        self.check()
        return name

    def _look(self) -> Stamp:
        try:
            found = os.stat(self.path)
        except OSError as error:
            raise unreadable(self.name, error) from None
        if not stat.S_ISREG(found.st_mode):
            raise DataError(f"{self.name}: not a regular file; write what it gives to a file first")
        return Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


class reading:  # noqa: N801 - reads as a verb: `with reading(file):`
    """Turn the errors of reading and unpacking a file into a `DataError` that names it."""

    def __init__(self, file: LocalFile) -> None:
        self._file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, DataError):
            return
        if self._file.compression is not None:
            from llmkit.data.files.compression import damage

            if what := damage(error):
                raise DataError(
                    f"{self._file.name}: the {self._file.compression} data {what}; pack or download the file again"
                ) from None
        if isinstance(error, OSError):
            raise unreadable(self._file.name, error) from None


def unreadable(name: str | Path, error: OSError) -> DataError:
    """The error for a file that the system does not open or read."""
    if isinstance(error, FileNotFoundError) and Path(name).is_symlink():
        return DataError(f"{name}: a link to {os.readlink(name)}, which is not there")
    return DataError(f"{name}: cannot be read: {error.strerror or error}")


def _skip(stream: BinaryIO, offset: int, name: str) -> None:
    while offset > 0:
        skipped = len(stream.read(min(offset, BLOCK)))
        if not skipped:
            raise DataError(f"{name}: the content is shorter than it was; start again")
        offset -= skipped


class _Handle:
    """An open file, closed when nobody uses it any more. Reading it moves no position, so that many may share it."""

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def read(self, start: int, count: int) -> bytes:
        data = os.pread(self._descriptor, count, start)
        while len(data) < count and (more := os.pread(self._descriptor, count - len(data), start + len(data))):
            data += more
        return data

    def __del__(self) -> None:
        # Absent when opening it failed.
        if (descriptor := self.__dict__.pop("_descriptor", None)) is not None:
            os.close(descriptor)


class _FromOffset(io.RawIOBase):
    """A handle as a file object."""

    def __init__(self, handle: _Handle, offset: int) -> None:
        self._handle = handle
        self._offset = offset

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] - what BufferedReader hands over
        data = self._handle.read(self._offset, len(buffer))
        buffer[: len(data)] = data
        self._offset += len(data)
        return len(data)


# A data set may have more files than a process may open. The stamp makes a replaced file be opened anew.
@lru_cache(maxsize=64)
def _handle(path: str, stamp: Stamp) -> _Handle:
    return _Handle(path)


# What is worked out for one state of a file is remembered in this process.
@lru_cache(maxsize=4096)
def _mark(path: str, stamp: Stamp) -> str:
    handle = _handle(path, stamp)
    size = stamp.size
    edges = handle.read(0, min(EDGE, size)) + handle.read(max(0, size - EDGE), min(EDGE, size))
    return f"{size}-{hashlib.blake2b(edges, digest_size=8).hexdigest()}"


@lru_cache(maxsize=4096)
def _content_hash(path: str, stamp: Stamp) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
