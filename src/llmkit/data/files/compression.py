"""Files packed with gzip or zstandard."""

import gzip
import io
import zlib
from pathlib import Path
from typing import BinaryIO

from llmkit.cache import cached_directory, remove_unused
from llmkit.data.files.local_file import BLOCK, Compression, LocalFile, reading
from llmkit.errors import DataError, TrainingError

SUFFIXES: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
GROUP = "unpacked"
CONTENT = "content"
DAYS_KEPT = 30
SIGNATURES: dict[Compression, bytes] = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd"}


def unpacking(packed: BinaryIO, compression: Compression) -> BinaryIO:
    """The content of a packed file, from front to back."""
    if compression == "gzip":
        return io.BufferedReader(gzip.GzipFile(fileobj=packed), BLOCK)  # type: ignore[arg-type] - has all it needs
    return io.BufferedReader(_Zstandard(packed), BLOCK)


def damage(error: BaseException) -> str | None:
    """What an error of `unpacking` says about the file, in words; None for an error of the system."""
    if isinstance(error, gzip.BadGzipFile | zlib.error):
        return f"is damaged ({error})"
    if isinstance(error, EOFError):
        return "ends too early; the file was cut off"
    # pyarrow raises OSError without a number for what it cannot unpack.
    if isinstance(error, OSError) and error.errno is None:
        torn = "truncated" in str(error).lower()
        return "ends too early; the file was cut off" if torn else f"is damaged ({error})"
    return None


def check_packed(file: LocalFile) -> None:
    """Make sure that a file is packed the way its name says.

    Raises:
        DataError: it is not.
    """
    if file.compression is None:
        return
    start = file.read(0, min(4, file.stamp.size))
    if not start:
        raise DataError(f"{file.name}: the file is empty")
    if not start.startswith(SIGNATURES[file.compression]):
        raise DataError(
            f"{file.name}: not {file.compression} data, whatever its name says; take the last extension off"
        )


def unpacked(file: LocalFile) -> LocalFile:
    """A packed file's content as a file that can be read at any place; kept in the cache, under its content's name.

    What nobody asked for in `DAYS_KEPT` days is removed when another file is unpacked.

    Raises:
        DataError: it cannot be unpacked, or the cache cannot be written.
    """
    if file.compression is None:
        return file

    def unpack(directory: Path) -> None:
        remove_unused(GROUP, DAYS_KEPT)
        with file.open() as source, (directory / CONTENT).open("wb") as target:
            while block := _read(source, file):
                target.write(block)

    try:
        directory = cached_directory(file.content_hash(), unpack, group=GROUP)
    except TrainingError as error:
        raise DataError(f"{file.name}: cannot be unpacked: {error}, or dataset.streaming=true") from None
    return LocalFile(directory / CONTENT, name=file.name)


def _read(source: BinaryIO, file: LocalFile) -> bytes:
    with reading(file):
        return source.read(BLOCK)


class _Zstandard(io.RawIOBase):
    """Unpacks with pyarrow, which comes with `datasets`."""

    def __init__(self, packed: BinaryIO) -> None:
        import pyarrow

        self._stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, mode="r"), "zstd")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override] - what BufferedReader hands over
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
