"""torch's distributed checkpoints, read a part of a tensor at a time."""

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed._shard._utils import narrow_tensor_by_index
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed
from torch.distributed.checkpoint.utils import _create_file_view

from llmkit.convert.checkpoints.stored_tensors import StoredTensor, load_places
from llmkit.convert.tensor_files import TensorShape
from llmkit.errors import CheckpointError

METADATA = ".metadata"


class DistributedFiles:
    """A directory of torch's distributed checkpoints.

    Attributes:
        left_out: entries that are no tensors.
        tensors: what it holds.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            CheckpointError: its metadata is damaged, or a shard is missing or torn.
        """
        self._directory = directory
        try:
            metadata = FileSystemReader(directory).read_metadata()
            self._stored = dict(metadata.storage_data)
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError) as error:
            raise CheckpointError(f"{directory / METADATA}: cannot be read: {error}") from error
        entries = metadata.state_dict_metadata
        found = {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
        self.left_out = sorted(entries.keys() - found.keys())
        self.tensors = {name: TensorShape(entry.properties.dtype, tuple(entry.size)) for name, entry in found.items()}
        self._chunks = {name: entry.chunks for name, entry in found.items()}
        # All at once, before any values: among large blocks, what is small and stays leaves gaps that none fits in.
        self._places = {
            (name, chunk.offsets): self._find(name, chunk.offsets)
            for name, chunks in self._chunks.items()
            for chunk in chunks
            if not self._info(name, chunk.offsets).transform_descriptors
        }

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it, put together from its shards.

        Raises:
            CheckpointError: a shard has changed, or does not hold what it should.
        """
        whole = self.tensors[name]
        if any((name, chunk.offsets) not in self._places for chunk in self._chunks[name]):
            return self._put_together(name) if rows is None else self._put_together(name)[rows]
        wanted = whole if rows is None else whole.of_rows(rows)
        first = 0 if rows is None else rows.indices(whole.shape[0])[0]
        result = torch.empty(wanted.shape, dtype=wanted.dtype)
        count = 0
        for chunk in self._chunks[name]:
            if not chunk.sizes:
                return self._places[name, chunk.offsets].read()
            start, end = max(first, chunk.offsets[0]), min(first + wanted.shape[0], chunk.offsets[0] + chunk.sizes[0])
            if start >= end:
                continue
            part = self._places[name, chunk.offsets].read(slice(start - chunk.offsets[0], end - chunk.offsets[0]))
            if part.shape == result.shape:
                return part
            narrow_tensor_by_index(result, (start - first, *chunk.offsets[1:]), part.shape).copy_(part)
            count += part.numel()
        if count != result.numel():
            raise CheckpointError(f"{self._directory}: {name}: its shards hold {count} of {result.numel()} values")
        return result

    def _info(self, name: str, offsets: torch.Size) -> Any:
        return self._stored[MetadataIndex(name, offsets)]

    def _find(self, name: str, offsets: torch.Size) -> StoredTensor:
        """Where the values of a shard are."""
        info = self._info(name, offsets)
        path = self._directory / info.relative_path
        try:
            with path.open("rb") as file:
                view: Any = _create_file_view(file, info.offset, info.length)
                return StoredTensor.of(path, load_places(view), info.offset)
        except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{self._directory}: {name} cannot be read: {_first_line(error)}") from error

    def _put_together(self, name: str) -> Tensor:
        """A tensor as torch reads it, for shards that an extension of it has packed."""
        entry = self.tensors[name]
        state = {name: torch.empty(entry.shape, dtype=entry.dtype)}
        try:
            with alone():
                load_distributed(state, storage_reader=FileSystemReader(self._directory), no_dist=True)
        except Exception as error:  # it wraps whatever reading raises in an error of its own
            raise CheckpointError(f"{self._directory}: {name} cannot be read: {_last_line(error)}") from error
        return state[name]


@contextmanager
def alone() -> Iterator[None]:
    """Without the warning that one process does the work, which is what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
