"""Checkpoints of three layouts as mappings from names to tensors, each read when it is asked for, whole or in parts."""

import json
import pickle
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load as load_distributed

from llmkit.convert.tensor_files import INDEX, WHOLE, SafetensorsReader, TensorShape, WeightFiles
from llmkit.convert.tensor_source import TensorSource
from llmkit.errors import CheckpointError

Layout = Literal["safetensors", "torch", "dcp"]
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
TORCH_INDEX, TORCH_WHOLE = "pytorch_model.bin.index.json", "pytorch_model.bin"
DCP_METADATA = ".metadata"


class TorchFiles:
    """Files of `torch.save`, mapped into memory.

    Attributes:
        left_out: entries that are no tensors.
    """

    def __init__(self, files: list[Path]) -> None:
        """
        Raises:
            CheckpointError: a file is missing, damaged, or holds more than tensors can be read from safely.
        """
        self.left_out: list[str] = []
        self._state: dict[str, Tensor] = {}
        for file in files:
            for name, value in _loaded(file).items():
                if isinstance(value, Tensor):
                    self._state[str(name)] = value
                else:
                    self.left_out.append(str(name))
        self.tensors = {name: TensorShape(value.dtype, tuple(value.shape)) for name, value in self._state.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor or rows of it; what of it is in memory is the system's to decide."""
        return self._state[name] if rows is None else self._state[name][rows]


class DistributedFiles:
    """A directory of torch's distributed checkpoints.

    Attributes:
        left_out: entries that are no tensors.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            CheckpointError: its metadata is damaged.
        """
        self._directory = directory
        self._last: tuple[str, Tensor] | None = None
        try:
            entries = FileSystemReader(directory).read_metadata().state_dict_metadata
        except (OSError, pickle.UnpicklingError, EOFError, AttributeError, ValueError) as error:
            raise CheckpointError(f"{directory / DCP_METADATA}: cannot be read: {error}") from error
        found = {name: entry for name, entry in entries.items() if isinstance(entry, TensorStorageMetadata)}
        self.left_out = sorted(entries.keys() - found.keys())
        self.tensors = {name: TensorShape(entry.properties.dtype, tuple(entry.size)) for name, entry in found.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, put together from its shards; rows come from the whole, which stays until another is read.

        Raises:
            CheckpointError: a shard is missing or damaged.
        """
        if self._last is None or self._last[0] != name:
            self._last = None
            self._last = (name, self._put_together(name))
        return self._last[1] if rows is None else self._last[1][rows]

    def _put_together(self, name: str) -> Tensor:
        entry = self.tensors[name]
        state = {name: torch.empty(entry.shape, dtype=entry.dtype)}
        try:
            with alone():
                load_distributed(state, storage_reader=FileSystemReader(self._directory), no_dist=True)
        except Exception as error:  # it wraps whatever reading raises in an error of its own
            raise CheckpointError(f"{self._directory}: {name} cannot be read: {_root(error)}") from error
        return state[name]


def open_checkpoint(path: Path) -> tuple[Layout, TensorSource]:
    """The checkpoint at a path, and which layout it has.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    if path.is_file():
        if path.suffix == ".safetensors":
            return "safetensors", SafetensorsReader(path)
        if path.suffix in TORCH_SUFFIXES:
            return "torch", TorchFiles([path])
        raise CheckpointError(f"{path}: its name does not say what it is: .safetensors, {', '.join(TORCH_SUFFIXES)}")
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such file or directory")
    if (path / WHOLE).is_file() or (path / INDEX).is_file():
        return "safetensors", WeightFiles(path)
    if (path / DCP_METADATA).is_file():
        return "dcp", DistributedFiles(path)
    if files := _torch_files(path):
        return "torch", TorchFiles(files)
    raise CheckpointError(
        f"{path}: no checkpoint; looked for {WHOLE}, {INDEX}, {TORCH_WHOLE}, {TORCH_INDEX} and {DCP_METADATA}"
    )


@contextmanager
def alone() -> Iterator[None]:
    """Without the warning that one process does the work, which is what is meant."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")
        yield


def _torch_files(path: Path) -> list[Path]:
    index = path / TORCH_INDEX
    if not index.is_file():
        return [path / TORCH_WHOLE] if (path / TORCH_WHOLE).is_file() else []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{index}: cannot be read: {error}") from error
    if missing := [name for name in names if not (path / name).is_file()]:
        raise CheckpointError(
            f"{path}: {len(missing)} of the files that {TORCH_INDEX} names are missing ({missing[0]})"
        )
    return [path / name for name in names]


def _loaded(file: Path) -> Mapping[str, Any]:
    try:
        state = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{file}: cannot be read, is cut off, or holds more than tensors, which is not safe to load: {first}"
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{file}: holds a {type(state).__name__}, and a mapping from names to tensors is needed")
    # Training scripts put the weights beside other state.
    for key in ("state_dict", "model"):
        if isinstance(state.get(key), Mapping) and any(isinstance(one, Tensor) for one in state[key].values()):
            return state[key]
    return state


def _root(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
