"""Safetensors files read and written in parts of a tensor, through plain reads, so that memory holds one part.

The layout: 8 bytes with the length of a JSON header, the header, and the tensors' bytes at the offsets that it says.
"""

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from llmkit.errors import CheckpointError

INDEX = "model.safetensors.index.json"
WHOLE = "model.safetensors"
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
LARGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class TensorShape:
    """What is known of a tensor without its values.

    Attributes:
        dtype: of its elements.
        shape: its dimensions.
    """

    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes that its values take."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def row_bytes(self) -> int:
        """Bytes of one index of its first dimension."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    def of_rows(self, rows: slice) -> "TensorShape":
        """The same of some rows."""
        return TensorShape(self.dtype, (len(range(*rows.indices(self.shape[0]))), *self.shape[1:]))


class SafetensorsReader:
    """One file.

    Attributes:
        path: where it is.
        tensors: what it holds.
    """

    def __init__(self, path: Path) -> None:
        """
        Raises:
            CheckpointError: it is no safetensors file, or was cut off.
        """
        self.path = path
        self.tensors: dict[str, TensorShape] = {}
        self._starts: dict[str, int] = {}
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                (length,) = struct.unpack("<Q", file.read(8))
                if length > min(size, LARGEST_HEADER):
                    raise ValueError("its header is longer than the file")
                header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            for name, entry in header.items():
                start, end = entry["data_offsets"]
                self.tensors[name] = TensorShape(DTYPES[entry["dtype"]], tuple(entry["shape"]))
                self._starts[name] = 8 + length + start
                if end - start != self.tensors[name].num_bytes or 8 + length + end > size:
                    raise ValueError(f"the end of {name} is missing")
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
            raise CheckpointError(f"{path}: no whole safetensors file ({error}); copy or download it again") from error

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it, in memory of its own.

        Raises:
            CheckpointError: the file has changed or cannot be read.
        """
        whole = self.tensors[name]
        entry = whole if rows is None else whole.of_rows(rows)
        first = 0 if rows is None else rows.indices(whole.shape[0])[0]
        if not entry.num_bytes:
            return torch.empty(entry.shape, dtype=entry.dtype)
        content = bytes_at(self.path, self._starts[name] + first * whole.row_bytes, entry.num_bytes)
        return torch.frombuffer(content, dtype=entry.dtype).reshape(entry.shape)


class SafetensorsWriter:
    """Writes one file; tensors may come in any order, each once."""

    def __init__(self, path: Path, tensors: Mapping[str, TensorShape]) -> None:
        """
        Args:
            path: what to write.
            tensors: all that will come.
        """
        # Widest first keeps every tensor aligned to its own elements, as the format's own writer does.
        ordered = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        start = 0
        self._starts: dict[str, int] = {}
        for name in ordered:
            end = start + tensors[name].num_bytes
            kind = NAMES[tensors[name].dtype]
            header[name] = {"dtype": kind, "shape": list(tensors[name].shape), "data_offsets": [start, end]}
            self._starts[name], start = start, end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._tensors = dict(tensors)
        self._offset = 8 + len(text)
        self._file = path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)
        self._file.truncate(self._offset + start)

    def write(self, name: str, parts: Iterable[Tensor]) -> None:
        """Write a tensor at its place, which comes as its rows one after the other."""
        self._file.seek(self._offset + self._starts.pop(name))
        count = 0
        for part in parts:
            assert part.dtype == self._tensors[name].dtype, name
            count += self._file.write(bytes_of(part))
        assert count == self._tensors[name].num_bytes, name

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        assert kind is not None or not self._starts, f"never written: {list(self._starts)[:3]}"


class WeightFiles:
    """The safetensors files of a model directory, as one mapping from names to tensors.

    Attributes:
        readers: one for each file, by its name.
        tensors: what all of them hold.
    """

    def __init__(self, directory: Path) -> None:
        """
        Raises:
            CheckpointError: a file is missing, damaged, or holds a tensor that another one has too.
        """
        self.directory = directory
        self.readers: dict[str, SafetensorsReader] = {}
        self._place: dict[str, str] = {}
        for file in _weight_files(directory):
            reader = self.readers[file] = SafetensorsReader(directory / file)
            for name in reader.tensors:
                if name in self._place:
                    raise CheckpointError(f"{directory}: {name} is in {self._place[name]} and in {file}")
                self._place[name] = file
        if lost := sorted(_indexed(directory).keys() - self._place.keys()):
            raise CheckpointError(
                f"{directory}: {INDEX} names {lost[0]}, and no file has it ({len(lost)} such); copy or download the "
                "files again"
            )
        self.tensors = {name: self.readers[file].tensors[name] for name, file in self._place.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        return self.readers[self._place[name]].read(name, rows)


def bytes_of(tensor: Tensor) -> memoryview:
    """What a file holds of a tensor, without a copy where its values lie in order."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")


def bytes_at(path: Path, start: int, count: int) -> bytearray:
    """So many bytes of a file.

    Raises:
        CheckpointError: it cannot be read, or ends before.
    """
    content = bytearray(count)
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(start)
            found = _fill(file, memoryview(content))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    if found != count:
        raise CheckpointError(f"{path}: is cut off before byte {start + count}; copy or download it again")
    return content


def _fill(file: RawIOBase, view: memoryview) -> int:
    """Read until the view is full or the file ends; returns the bytes that came."""
    done = 0
    while done < len(view) and (count := file.readinto(view[done:])):
        done += count
    return done


def _weight_files(directory: Path) -> list[str]:
    if (directory / INDEX).is_file():
        files = sorted(set(_indexed(directory).values()))
        if missing := [file for file in files if not (directory / file).is_file()]:
            raise CheckpointError(
                f"{directory}: {len(missing)} of the files that {INDEX} names are missing ({missing[0]}); the download "
                "may be incomplete"
            )
        return files
    if (directory / WHOLE).is_file():
        return [WHOLE]
    raise CheckpointError(f"{directory}: neither {WHOLE} nor {INDEX}, so there are no weights to read one by one")


def _indexed(directory: Path) -> Mapping[str, str]:
    """The file of each tensor, where there is an index of them."""
    index = directory / INDEX
    if not index.is_file():
        return {}
    try:
        return dict(json.loads(index.read_text(encoding="utf-8"))["weight_map"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{index}: cannot be read: {error}; copy or download it again") from error
