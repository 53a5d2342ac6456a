"""Token sequences with loss weights in flat arrays, end to end in files.

Three files share a stem: `STEM.bin` the token ids, two bytes each where all fit, else four; `STEM.weights` a loss
weight for each token, as the number of a row of a table or as the weight itself; `STEM.ends` where each sequence ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from llmkit.data.preparing.array_file import ArrayLayout, ArrayWriter, map_array

NARROW, WIDE = np.dtype(np.uint16), np.dtype(np.int32)
LARGEST_NARROW, LARGEST_WIDE = int(np.iinfo(NARROW).max), int(np.iinfo(WIDE).max)
MAX_DISTINCT_WEIGHTS = 256
FILES = ("bin", "weights", "ends")


@dataclass(frozen=True)
class TokenLayout:
    """What must be known to read the files; JSON can hold it.

    Attributes:
        ids: of `STEM.bin`.
        weights: of `STEM.weights`.
        ends: of `STEM.ends`.
        weight_table: the distinct weights, when the file holds their numbers; None when it holds weights.
    """

    ids: ArrayLayout
    weights: ArrayLayout
    ends: ArrayLayout
    weight_table: Sequence[float] | None

    def to_json(self) -> dict[str, Any]:
        """As `from_json` takes it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read a layout.

        Raises:
            KeyError, TypeError: it is none.
        """
        arrays = {name: ArrayLayout(**values[name]) for name in ("ids", "weights", "ends")}
        return cls(**arrays, weight_table=values["weight_table"])


class TokenWriter:
    """Appends sequences to the files of a stem; memory does not grow with them."""

    def __init__(self, stem: Path) -> None:
        self._ids = ArrayWriter(_file(stem, "bin"), NARROW)
        self._weights = ArrayWriter(_file(stem, "weights"), np.uint8)
        self._ends = ArrayWriter(_file(stem, "ends"), np.int64)
        self._num_tokens = 0
        self._table: dict[float, int] | None = {}

    def append(self, token_ids: Sequence[int], loss_weights: Sequence[float]) -> None:
        """Add a sequence.

        Args:
            token_ids: T ids from 0.
            loss_weights: T weights. More than 256 distinct ones in all are kept as float32, fewer exactly.
        Raises:
            OverflowError: an id is negative or does not fit into four bytes.
        """
        assert len(token_ids) == len(loss_weights), f"{len(token_ids)} ids with {len(loss_weights)} weights"
        ids = np.asarray(token_ids, np.int64)
        least, largest = (int(ids.min()), int(ids.max())) if len(ids) else (0, 0)
        if least < 0 or largest > LARGEST_WIDE:
            raise OverflowError(f"token ids lie between 0 and {LARGEST_WIDE}; found {least} to {largest}")
        if largest > LARGEST_NARROW and self._ids.dtype == NARROW:
            self._ids.widen(WIDE)
        self._ids.append(ids)
        self._append_weights(loss_weights)
        self._num_tokens += len(ids)
        self._ends.append([self._num_tokens])

    def finish(self) -> TokenLayout:
        """Write everything to the disk and close the files."""
        table = None if self._table is None else list(self._table)
        return TokenLayout(self._ids.finish(), self._weights.finish(), self._ends.finish(), table)

    def close(self) -> None:
        """Let go of the files, whole or not."""
        for array in (self._ids, self._weights, self._ends):
            array.close()

    def _append_weights(self, loss_weights: Sequence[float]) -> None:
        if self._table is None:
            self._weights.append(loss_weights)
            return
        table = self._table
        for weight in dict.fromkeys(loss_weights):
            table.setdefault(float(weight), len(table))
        if len(table) <= MAX_DISTINCT_WEIGHTS:
            self._weights.append(list(map(table.__getitem__, loss_weights)))
            return
        weights = np.array(list(table), np.float32)
        self._table = None
        self._weights.widen(np.float32, lambda codes: weights[codes])
        self._weights.append(loss_weights)


class TokenArrays:
    """The sequences of a stem's files, read when they are asked for.

    Attributes:
        ends: [S] int64, where each of S sequences ends among all tokens.
        lengths: [S] int64, tokens of each.
    """

    def __init__(self, stem: Path, layout: TokenLayout) -> None:
        """Map the files.

        Raises:
            OSError: a file cannot be read.
            ValueError: a file has another size than the layout says.
        """
        self._ids = map_array(_file(stem, "bin"), layout.ids)
        self._weights = map_array(_file(stem, "weights"), layout.weights)
        self._table = None if layout.weight_table is None else np.array(layout.weight_table, np.float64)
        self.ends = map_array(_file(stem, "ends"), layout.ends)
        self.lengths = np.diff(self.ends, prepend=0)

    def __len__(self) -> int:
        return len(self.ends)

    def ids(self, index: int, start: int = 0, end: int | None = None) -> np.ndarray:
        """Token ids `[start, end)` of a sequence; `end` None is its own end."""
        return self._ids[self._span(index, start, end)]

    def weights(self, index: int, start: int = 0, end: int | None = None) -> np.ndarray:
        """Loss weights of the same tokens."""
        weights = self._weights[self._span(index, start, end)]
        return weights if self._table is None else self._table[weights]

    def _span(self, index: int, start: int, end: int | None) -> slice:
        length = self.lengths[index]
        first = self.ends[index] - length
        return slice(first + min(start, length), first + (length if end is None else min(end, length)))


def _file(stem: Path, name: str) -> Path:
    return stem.with_name(f"{stem.name}.{name}")
