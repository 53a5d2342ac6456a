"""A checkpoint with other names, sizes or types, which is worked out while it is read."""

from collections.abc import Mapping

import torch
from torch import Tensor

from llmkit.convert.casting import converted, in_dtype
from llmkit.convert.tensor_files import TensorShape
from llmkit.convert.tensor_source import TensorSource, parts
from llmkit.errors import CheckpointError, ConfigError


class Renamed:
    """The same tensors under other names."""

    def __init__(self, source: TensorSource, renames: Mapping[str, str]) -> None:
        """
        Args:
            source: of the tensors.
            renames: new start of a name for an old one; the first that fits counts.

        Raises:
            ConfigError: two tensors would have one name, or nothing begins so.
            CheckpointError: there are no tensors.
        """
        self._source = source
        self._old = _renamed(source, renames)
        self.tensors = {new: source.tensors[old] for new, old in self._old.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        return self._source.read(self._old[name], rows)


class Resized:
    """Some tensors with more rows, or fewer: a new one is the mean of those that stay."""

    def __init__(self, source: TensorSource, sizes: Mapping[str, int]) -> None:
        """
        Args:
            source: of the tensors.
            sizes: rows by name; the others stay as they are.
        """
        self._source = source
        self._means: dict[str, Tensor] = {}
        self.tensors = {
            name: TensorShape(entry.dtype, (sizes[name], *entry.shape[1:])) if name in sizes else entry
            for name, entry in source.tensors.items()
        }

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        shape, old = self.tensors[name].shape, self._source.tensors[name].shape
        if shape == old:
            return self._source.read(name, rows)
        start, stop, _ = slice(0, shape[0]).indices(shape[0]) if rows is None else rows.indices(shape[0])
        kept = self._source.read(name, slice(min(start, old[0]), min(stop, old[0])))
        num_new = stop - start - kept.shape[0]
        return torch.cat([kept, self._mean(name).expand(num_new, *shape[1:])]) if num_new else kept

    def _mean(self, name: str) -> Tensor:
        if name not in self._means:
            entry = self._source.tensors[name]
            total = torch.zeros(entry.shape[1:], dtype=torch.float64)
            for part in parts(self._source, name):
                total += part.sum(0, dtype=torch.float64)
            self._means[name] = (total / entry.shape[0]).to(entry.dtype)
        return self._means[name]


class Cast:
    """The same tensors in another type, which are looked at: every number is finite, or reading fails."""

    def __init__(self, source: TensorSource, dtype: torch.dtype | None) -> None:
        """
        Args:
            source: of the tensors.
            dtype: of those with a floating point; None leaves each its own.
        """
        self._source = source
        self.tensors = {name: converted(entry, dtype) for name, entry in source.tensors.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it.

        Raises:
            ConvertError: a number is not finite, or too large for the type.
        """
        return in_dtype(self._source.read(name, rows), self.tensors[name].dtype, name)


def _renamed(source: TensorSource, renames: Mapping[str, str]) -> dict[str, str]:
    """Old names by the new ones."""
    if not source.tensors:
        raise CheckpointError("the checkpoint holds no tensors")
    names: dict[str, str] = {}
    used: set[str] = set()
    for old in source.tensors:
        start = next((start for start in renames if old.startswith(start)), None)
        new = old if start is None else renames[start] + old.removeprefix(start)
        used |= {start} if start is not None else set()
        if not new or new in names:
            raise ConfigError(f"--rename: {old} and {names.get(new, 'nothing')} would both be called {new!r}")
        names[new] = old
    if unused := [start for start in renames if start not in used]:
        raise ConfigError(f"--rename {unused[0]}=...: no name begins so; the first one is {next(iter(source.tensors))}")
    return names
