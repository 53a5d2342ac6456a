"""Arrays in files: written piece by piece, read without loading them."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

BUFFER_BYTES = 1 << 20
WIDEN_ITEMS = 1 << 22


@dataclass(frozen=True)
class ArrayLayout:
    """What must be known to read an array's file, which has no header of its own.

    Attributes:
        dtype: as `numpy.dtype.str` writes it, byte order included: `<u2`.
        count: number of items.
    """

    dtype: str
    count: int

    @property
    def num_bytes(self) -> int:
        """Size of the file."""
        return self.count * np.dtype(self.dtype).itemsize


class ArrayWriter:
    """A one-dimensional array that grows at its end."""

    def __init__(self, path: Path, dtype: DTypeLike) -> None:
        """Begin an empty file; what was at `path` is lost."""
        self._path = path
        self._dtype = np.dtype(dtype).newbyteorder("<")
        self._count = 0
        self._file = path.open("wb", buffering=BUFFER_BYTES)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the items."""
        return self._dtype

    def append(self, values: Any) -> None:
        """Add items.

        Args:
            values: [N] numbers that the type can hold.
        """
        array = np.asarray(values, self._dtype)
        self._count += len(array)
        self._file.write(array.tobytes())

    def widen(self, dtype: DTypeLike, convert: Callable[[np.ndarray], np.ndarray] = lambda items: items) -> None:
        """Go on with items of another type; `convert` makes the new items of the ones that are written."""
        layout = self.finish()
        narrow = self._path.with_name(f"{self._path.name}.narrow")
        self._path.rename(narrow)
        items = map_array(narrow, layout)
        self.__init__(self._path, dtype)
        for start in range(0, layout.count, WIDEN_ITEMS):
            self.append(convert(items[start : start + WIDEN_ITEMS]))
        narrow.unlink()

    def finish(self) -> ArrayLayout:
        """Write everything to the disk and close the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return ArrayLayout(self._dtype.str, self._count)

    def close(self) -> None:
        """Let go of the file, whole or not."""
        with suppress(OSError):  # what cannot be written was told when it was written
            self._file.close()


def map_array(path: Path, layout: ArrayLayout) -> np.ndarray:
    """The array of a file, whose pages are read when they are used.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has another size than the layout says.
    """
    size = path.stat().st_size
    if size != layout.num_bytes:
        raise ValueError(f"{path} has {size:,} bytes, not {layout.num_bytes:,}")
    if not layout.count:
        return np.empty(0, layout.dtype)  # nothing cannot be mapped
    return np.memmap(path, layout.dtype, mode="r", shape=(layout.count,))
