"""The back of the store `memmap`."""

import json
import logging
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from llmkit.data.preparing.array_file import ArrayLayout, map_array
from llmkit.data.preparing.token_arrays import FILES, TokenArrays, TokenLayout, TokenWriter
from llmkit.data.stores.checking import checked
from llmkit.data.stores.contract import Tokens, TokenSequences
from llmkit.data.stores.writing import whole_files
from llmkit.errors import DataError
from llmkit.types import Sample, Source

FORMAT = "llmkit tokens"
VERSION = 1

logger = logging.getLogger(__name__)


class MemmapStore:
    """The store `memmap`."""

    suffixes: Sequence[str] = (".bin",)

    def __init__(self, dtype: str | None) -> None:
        self._dtype = dtype

    def open(self, path: Path) -> TokenSequences:
        """Map the files; nothing is read before it is asked for."""
        header = _read_header(path)
        try:
            if header is None:
                return PlainTokens(path, self._dtype)
            if self._dtype is not None:
                logger.warning("store.dtype=%s has no effect: %s says the type", self._dtype, _header_path(path))
            return MappedTokens(path, header)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read: {error}") from None

    def write(self, path: Path, samples: Iterable[Sample]) -> None:
        """Write `NAME.bin`, `NAME.weights`, `NAME.ends` and `NAME.json`."""
        with (
            whole_files(path, last=_header_path(path).name) as partial,
            closing(TokenWriter(partial.with_suffix(""))) as writer,
        ):
            for sample in samples:
                writer.append(sample.token_ids, sample.loss_weights)
            header = {"format": FORMAT, "version": VERSION, "layout": writer.finish().to_json()}
            _header_path(partial).write_text(json.dumps(header), encoding="utf-8")


class MappedTokens:
    """Sequences of files with a header."""

    def __init__(self, path: Path, layout: TokenLayout) -> None:
        """
        Raises:
            OSError: a file cannot be read.
            ValueError: a file has another size than the header says.
        """
        self.files: Sequence[Path] = [
            *(path.with_suffix(f".{name}") for name in FILES),
            _header_path(path),
        ]
        self._path = path
        self._arrays = TokenArrays(path.with_suffix(""), layout)
        self.lengths = self._arrays.lengths

    def __len__(self) -> int:
        return len(self._arrays)

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens of a sequence, as views of the mapped files."""
        ids, weights = self._arrays.ids(index, start, end), self._arrays.weights(index, start, end)
        return checked(ids, {"loss_weights": weights}, self.source(index))

    def source(self, index: int) -> Source:
        """The file and the number of the sequence, from 1."""
        return Source(str(self._path), index + 1)


class PlainTokens:
    """A file of token ids alone, as one sequence."""

    def __init__(self, path: Path, dtype: str | None) -> None:
        """
        Raises:
            DataError: its type is not said, or its size is no multiple of that type's.
            OSError: it cannot be read.
        """
        if dtype is None:
            raise DataError(
                f"{path}: no header {_header_path(path).name} beside it. If it holds token ids and nothing else, say "
                "of which type: --set dataset.store.name=memmap --set dataset.store.dtype=uint16 (or uint32, ...)"
            )
        little_endian = np.dtype(dtype).newbyteorder("<")
        count, rest = divmod(path.stat().st_size, little_endian.itemsize)
        if rest or not count:
            size = f"{path.stat().st_size:,} bytes"
            raise DataError(
                f"{path}: {size} are no whole number of {dtype} ids; was it cut off, or is it another type?"
            )
        self.files: Sequence[Path] = [path]
        self.lengths = np.array([count], np.int64)
        self._ids = map_array(path, ArrayLayout(little_endian.str, count))

    def __len__(self) -> int:
        return 1

    def read(self, index: int, start: int = 0, end: int | None = None) -> Tokens:
        """Tokens of the one sequence."""
        return checked(self._ids[start:end], {}, self.source(index))

    def source(self, index: int) -> Source:
        """The file, as its first and only sequence."""
        return Source(str(self.files[0]), index + 1)


def _header_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_header(path: Path) -> TokenLayout | None:
    """The layout that stands beside a file; None when there is none of ours.

    Raises:
        DataError: it is damaged, or of a version that is not read.
    """
    beside = _header_path(path)
    try:
        header: Any = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise DataError(f"{beside}: not the header of {path.name}: {error}") from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        return None
    if header.get("version") != VERSION:
        raise DataError(f"{beside}: version {header.get('version')} is not read, only {VERSION}; update llmkit")
    try:
        return TokenLayout.from_json(header["layout"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{beside}: the header is damaged: {error}; write {path.name} again") from None
