"""The files of a tokenized data set: items, the rows that they came of, places, counts and faults.

A directory holds the three files of `token_arrays` (stem `tokens`; a pair is two sequences), `rows.starts` (the first
item of each row, and the number of items), `lines` and `paths` (the place of each sequence: a line, and the number of
the path in the header) and `header.json`, which is written last and has the sizes of all others.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from llmkit.data.contract import Encoded
from llmkit.data.counts import RowCounts
from llmkit.data.preparing.array_file import ArrayLayout, ArrayWriter, map_array
from llmkit.data.preparing.token_arrays import TokenArrays, TokenLayout, TokenWriter
from llmkit.types import PreferencePair, Sample

LAYOUT_VERSION = 1
"""Raised when the files change, so that older ones are made again."""
HEADER = "header.json"
STEM, ROW_STARTS, LINES, PATHS = "tokens", "rows.starts", "lines", "paths"


@dataclass(frozen=True)
class Header:
    """What is not in an array.

    Attributes:
        is_pairs: items are preference pairs.
        tokens: layout of the sequences.
        row_starts: layout of the rows' first items.
        lines: layout of the sequences' lines.
        paths: layout of the numbers of their paths.
        path_names: the paths.
        counts: what became of the rows.
        faults: errors of the rows that were left out.
    """

    is_pairs: bool
    tokens: TokenLayout
    row_starts: ArrayLayout
    lines: ArrayLayout
    paths: ArrayLayout
    path_names: Sequence[str]
    counts: RowCounts
    faults: Sequence[str]


class PreparedWriter:
    """Writes items row by row; memory does not grow with them."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._tokens = TokenWriter(directory / STEM)
        self._row_starts = ArrayWriter(directory / ROW_STARTS, np.int64)
        self._lines = ArrayWriter(directory / LINES, np.int64)
        self._paths = ArrayWriter(directory / PATHS, np.int32)
        self._path_numbers: dict[str, int] = {}
        self._num_items = 0
        self._is_pairs = False
        self._counts = RowCounts()
        self._faults: list[str] = []

    def add(self, encoded: Encoded[Any]) -> None:
        """Write what is trained of the next row."""
        self._row_starts.append([self._num_items])
        self._counts.add(encoded)
        for item in encoded.items:
            self._is_pairs = isinstance(item, PreferencePair)
            for sample in (item.chosen, item.rejected) if isinstance(item, PreferencePair) else (item,):
                self._add_sample(sample)
            self._num_items += 1

    def add_fault(self, fault: str) -> None:
        """Note that the next row was left out, and why."""
        self._row_starts.append([self._num_items])
        self._counts.rows += 1
        self._counts.skipped += 1
        self._faults.append(fault)

    def finish(self) -> None:
        """Write everything to the disk, the header last."""
        self._row_starts.append([self._num_items])
        layouts = (self._row_starts.finish(), self._lines.finish(), self._paths.finish())
        header = Header(
            self._is_pairs, self._tokens.finish(), *layouts, list(self._path_numbers), self._counts, self._faults
        )
        body = json.dumps(asdict(header))
        written = {"version": LAYOUT_VERSION, "checksum": _checksum(body), "body": body}
        (self._directory / HEADER).write_text(json.dumps(written), encoding="utf-8")

    def close(self) -> None:
        """Let go of the files, whole or not."""
        self._tokens.close()
        for array in (self._row_starts, self._lines, self._paths):
            array.close()

    def _add_sample(self, sample: Sample) -> None:
        self._tokens.append(sample.token_ids, sample.loss_weights)
        self._lines.append([sample.source.line])
        self._paths.append([self._path_numbers.setdefault(sample.source.path, len(self._path_numbers))])


class PreparedFiles:
    """The files of a directory, mapped.

    Attributes:
        header: what is not in an array.
        tokens: the sequences.
        row_starts: [R + 1] int64.
        lines: [S] int64.
        paths: [S] int32.
    """

    def __init__(self, directory: Path) -> None:
        """Open a directory.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file is damaged, or of another version.
        """
        self.header = header = _read_header(directory / HEADER)
        self.tokens = TokenArrays(directory / STEM, header.tokens)
        self.row_starts = map_array(directory / ROW_STARTS, header.row_starts)
        self.lines = map_array(directory / LINES, header.lines)
        self.paths = map_array(directory / PATHS, header.paths)


def is_whole(directory: Path) -> bool:
    """Whether the files of a directory are all there and of the sizes that its header says."""
    try:
        PreparedFiles(directory)
    except (OSError, ValueError):
        return False
    return True


def _read_header(path: Path) -> Header:
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
        if written["version"] != LAYOUT_VERSION or written["checksum"] != _checksum(written["body"]):
            raise ValueError(f"{path} is damaged, or of another version")
        body = json.loads(written["body"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    arrays = {name: ArrayLayout(**body[name]) for name in ("row_starts", "lines", "paths")}
    tokens, counts = TokenLayout.from_json(body["tokens"]), RowCounts(**body["counts"])
    return Header(**{**body, **arrays, "tokens": tokens, "counts": counts})


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
