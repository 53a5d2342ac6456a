"""The back of the store `hdf5`."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from llmkit.data.stores.checking import WEIGHTS, checked
from llmkit.data.stores.contract import Tokens
from llmkit.data.stores.writing import whole_files
from llmkit.errors import DataError, PluginError
from llmkit.types import Sample, Source

CHUNK_ITEMS = 1 << 16
"""Items that HDF5 keeps together, and the least that are written at once."""
PADDING = "attention_mask"


class HDF5Store:
    """The store `hdf5`."""

    suffixes: Sequence[str] = (".h5", ".hdf5")

    def __init__(self, token_ids: str) -> None:
        self._token_ids = token_ids

    def open(self, path: Path) -> "HDF5Tokens":
        """Open a file; nothing but the ends of its sequences is read before it is asked for."""
        h5py = _h5py()
        try:
            file = h5py.File(path, "r")
        except OSError as error:
            raise DataError(f"{path}: no HDF5 file, or damaged: {str(error).splitlines()[0]}") from None
        return HDF5Tokens(path, file, self._token_ids)

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write flat `input_ids` and `loss_weights`, and `ends`."""
        h5py = _h5py()
        with whole_files(path) as partial, _in_few_words(), h5py.File(partial, "w") as file:
            group = file.require_group(str(Path(self._token_ids).parent))
            ids = _Growing(group, Path(self._token_ids).name, np.int32)
            weights = _Growing(group, "loss_weights", np.float64)
            ends = _Growing(group, "ends", np.int64)
            num_tokens = 0
            for sample in samples:
                num_tokens += len(sample.token_ids)
                ids.extend(sample.token_ids)
                weights.extend(sample.loss_weights)
                ends.extend([num_tokens])
            for growing in (ids, weights, ends):
                growing.flush()


class HDF5Tokens:
    """The sequences of a file.

    Attributes:
        lengths: [N] int64, tokens of each.
    """

    def __init__(self, path: Path, file: Any, token_ids: str) -> None:
        """
        Raises:
            DataError: the file has no such data set, or one of another shape than its neighbours say.
        """
        self.files: Sequence[Path] = [path]
        self._path = path
        # The file stays open as long as its data sets are used.
        self._file = file
        found = file.get(token_ids)
        if found is None or not hasattr(found, "shape") or len(found.shape) not in (1, 2):
            there = ", ".join(sorted(file)) or "nothing"
            raise DataError(
                f"{path}: no data set '{token_ids}' of one or two dimensions; the file has {there}. Name it with "
                "--set dataset.store.token_ids=..."
            )
        self._ids = found
        group = found.parent
        self._weights = {name: group[name] for name in WEIGHTS if name in group}
        self._ends = self._find_ends(group)
        self.lengths = np.diff(self._ends, prepend=0)
        _refuse_padding(path, group)
        for name, values in self._weights.items():
            if values.shape != found.shape:
                raise DataError(f"{path}: '{name}' has the shape {values.shape}, '{token_ids}' {found.shape}")

    def __len__(self) -> int:
        return len(self.lengths)

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens of a sequence; only they are read from the file."""
        length = int(self.lengths[index])
        first, last = min(start, length), length if end is None else min(end, length)
        where: Any = (index, slice(first, last))
        if len(self._ids.shape) == 1:
            offset = int(self._ends[index]) - length
            where = slice(offset + first, offset + last)
        try:
            weights = {name: values[where] for name, values in self._weights.items()}
            return checked(self._ids[where], weights, self.source(index))
        except OSError as error:
            raise DataError(f"{self.source(index)}: cannot be read: {str(error).splitlines()[0]}") from None

    def source(self, index: int) -> Source:
        """The file and the number of the sequence, from 1."""
        return Source(str(self._path), index + 1)

    def _find_ends(self, group: Any) -> np.ndarray:
        if len(self._ids.shape) == 2:
            num_rows, length = self._ids.shape
            return np.arange(1, num_rows + 1, dtype=np.int64) * length
        total = self._ids.shape[0]
        if "ends" not in group:
            return np.array([total], np.int64)
        ends = np.asarray(group["ends"], np.int64)
        if ends.ndim != 1 or (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != total:
            raise DataError(f"{self._path}: 'ends' must rise to {total}, the number of tokens")
        return ends


class _Growing:
    """A data set that grows at its end, in large steps."""

    def __init__(self, group: Any, name: str, dtype: type) -> None:
        self._values: list[Any] = []
        self._stored = group.create_dataset(name, (0,), dtype, maxshape=(None,), chunks=(CHUNK_ITEMS,))

    def extend(self, values: Sequence[Any]) -> None:
        self._values += values
        if len(self._values) >= CHUNK_ITEMS:
            self.flush()

    def flush(self) -> None:
        start = self._stored.shape[0]
        self._stored.resize((start + len(self._values),))
        self._stored[start:] = self._values
        self._values = []


def _refuse_padding(path: Path, group: Any) -> None:
    if PADDING in group and not np.asarray(group[PADDING]).all():
        raise DataError(
            f"{path}: '{PADDING}' marks padding, which would be trained on; store flat ids with 'ends', or give "
            "padding the label -100 and remove the mask"
        )


@contextmanager
def _in_few_words() -> Iterator[None]:
    """Leave of a system error what the system says; HDF5 adds addresses and times over several lines."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError:
        raise PluginError("Store 'hdf5' needs h5py: pip install 'llmkit[hdf5]'") from None
    return h5py
