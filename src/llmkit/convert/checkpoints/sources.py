"""Checkpoints of three layouts as mappings from names to tensors, each read when it is asked for, whole or in parts."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from llmkit.convert.checkpoints.distributed_files import METADATA, DistributedFiles
from llmkit.convert.checkpoints.stored_tensors import StoredTensor, load_places
from llmkit.convert.tensor_files import INDEX, WHOLE, SafetensorsReader, WeightFiles
from llmkit.convert.tensor_source import TensorSource
from llmkit.errors import CheckpointError

Layout = Literal["safetensors", "torch", "dcp"]
TORCH_SUFFIXES = (".pt", ".pth", ".bin")
TORCH_INDEX, TORCH_WHOLE = "pytorch_model.bin.index.json", "pytorch_model.bin"


class TorchFiles:
    """Files of `torch.save`.

    Attributes:
        left_out: entries that are no tensors.
    """

    def __init__(self, files: list[Path]) -> None:
        """
        Raises:
            CheckpointError: a file is missing, damaged, or holds more than tensors can be read from safely.
        """
        self.left_out: list[str] = []
        self._stored: dict[str, StoredTensor] = {}
        for file in files:
            for name, value in _loaded(file).items():
                if isinstance(value, StoredTensor):
                    self._stored[str(name)] = value
                else:
                    self.left_out.append(str(name))
        self.tensors = {name: stored.shape for name, stored in self._stored.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        return self._stored[name].read(rows)


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
    if (path / METADATA).is_file():
        return "dcp", DistributedFiles(path)
    if files := _torch_files(path):
        return "torch", TorchFiles(files)
    raise CheckpointError(
        f"{path}: no checkpoint; looked for {WHOLE}, {INDEX}, {TORCH_WHOLE}, {TORCH_INDEX} and {METADATA}"
    )


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
    """What a file holds, with the places of tensors in place of them."""
    try:
        state = load_places(file)
        if not isinstance(state, Mapping):
            kind = type(state).__name__
            raise CheckpointError(f"{file}: holds a {kind}, and a mapping from names to tensors is needed")
        # Training scripts put the weights beside other state.
        for key in ("state_dict", "model"):
            if isinstance(state.get(key), Mapping) and any(isinstance(one, Tensor) for one in state[key].values()):
                state = state[key]
                break
        return {name: StoredTensor.of(file, one) if isinstance(one, Tensor) else one for name, one in state.items()}
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{file}: cannot be read, is cut off, or holds more than tensors, which is not safe to load: {first}"
        ) from error
