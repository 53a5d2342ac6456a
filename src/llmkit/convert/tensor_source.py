"""Tensors by name, read when they are asked for, and in parts, so that memory need not hold a large one."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor

from llmkit.convert.tensor_files import TensorShape

PART_BYTES = 32 * 1024 * 1024
"""Of a tensor, in memory at a time."""


class TensorSource(Protocol):
    """A checkpoint that is read one tensor, or a part of one, at a time."""

    @property
    def tensors(self) -> Mapping[str, TensorShape]:
        """Types and shapes by name."""
        ...

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        ...


def parts(source: TensorSource, name: str) -> Iterator[Tensor]:
    """A tensor as its rows, so many at a time as `PART_BYTES` allow."""
    for rows in row_parts(source.tensors[name]):
        yield source.read(name, rows)


def row_parts(entry: TensorShape) -> Iterator[slice | None]:
    """Rows that are read together; None for what is read whole."""
    if entry.num_bytes <= PART_BYTES:
        yield None
        return
    step = max(1, PART_BYTES // entry.row_bytes)
    for start in range(0, entry.shape[0], step):
        yield slice(start, min(start + step, entry.shape[0]))
