"""Tensors in files of `torch.save`, read from their places in parts, through plain reads.

Mapped into memory, pages of the file count as memory of the process until the system wants them back.
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from llmkit.convert.tensor_files import TensorShape, bytes_at

BYTE_ORDER = "byteorder"


@dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's values are.

    Attributes:
        path: of the file.
        start: bytes before its first element.
        shape: its type and dimensions.
        strides: elements from one index of a dimension to the next.
    """

    path: Path
    start: int
    shape: TensorShape
    strides: tuple[int, ...]

    @classmethod
    def of(cls, path: Path, tensor: Tensor, offset: int = 0) -> "StoredTensor":
        """The place of a tensor that `load_places` gave.

        Args:
            path: of the file.
            offset: bytes before what was loaded.
        Raises:
            ValueError: it has no place, as a sparse one or one of torch before 1.6.
        """
        storage = None if tensor.layout is not torch.strided else tensor.untyped_storage()
        begin = getattr(storage, "_checkpoint_offset", None)
        if begin is None:
            raise ValueError("not stored as plain values; load it and save it again")
        begin += tensor.storage_offset() * tensor.dtype.itemsize
        return cls(path, offset + begin, TensorShape(tensor.dtype, tuple(tensor.shape)), tensor.stride())

    def read(self, rows: slice | None = None) -> Tensor:
        """The tensor, or neighbouring rows of it, in memory of its own.

        Raises:
            CheckpointError: the file has changed or cannot be read.
        """
        entry = self.shape if rows is None else self.shape.of_rows(rows)
        if not entry.num_bytes:
            return torch.empty(entry.shape, dtype=entry.dtype)
        first = 0 if rows is None else rows.indices(self.shape.shape[0])[0] * self.strides[0]
        count = 1 + sum((size - 1) * stride for size, stride in zip(entry.shape, self.strides, strict=True))
        width = entry.dtype.itemsize
        content = bytes_at(self.path, self.start + first * width, count * width)
        return torch.frombuffer(content, dtype=entry.dtype).as_strided(entry.shape, self.strides)


def load_places(file: Path | BinaryIO) -> Any:
    """What `torch.save` has written, with places in place of values; see `StoredTensor.of`.

    Raises:
        RuntimeError, ValueError, pickle.UnpicklingError: it is damaged, or holds what is not safe to load.
    """
    source: Any = str(file) if isinstance(file, Path) else file
    reader: Any = torch._C.PyTorchFileReader(source)
    if reader.has_record(BYTE_ORDER) and reader.get_record(BYTE_ORDER).decode() != sys.byteorder:
        raise ValueError("written on a machine of the other byte order; load and save it there as safetensors")
    if not isinstance(file, Path):
        file.seek(0)
    with FakeTensorMode():
        return torch.load(source, map_location="cpu", weights_only=True)
