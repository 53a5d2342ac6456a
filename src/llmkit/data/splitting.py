"""Hold out rows of a data set or stream, to measure on what is not trained on."""

from dataclasses import replace
from typing import overload

import numpy as np

from llmkit.data.contract import Dataset, Sized, Stream
from llmkit.data.mixtures.mixing import derived_seed
from llmkit.data.mixtures.mixture_stream import MixtureStream
from llmkit.data.row_views import choose_rows
from llmkit.data.stream_views import StreamView
from llmkit.errors import DataError

SPLIT = 2**40
"""Keeps these draws apart from those that order an epoch, whose second number is the epoch."""
BLOCK = 1024
"""Rows of a stream that are decided together."""


@overload
def split(data: Dataset, fraction: float, seed: int) -> tuple[Dataset, Dataset]: ...
@overload
def split(data: Stream, fraction: float, seed: int) -> tuple[Stream, Stream]: ...
def split(data: Dataset | Stream, fraction: float, seed: int) -> tuple[Dataset | Stream, Dataset | Stream]:
    """Rows to train on, and rows to hold out.

    Whether a row is held out depends on `seed` and on its number alone: rows that are appended later do not move it. In
    a mixture of streams, which may repeat, it is its number within its source.

    Args:
        data: what to divide; the parts go on reading from it.
        fraction: of the rows to hold out, between 0 and 1.
        seed: from 0; another seed holds out other rows.
    Returns: the rows to train on and those held out; together every row, none twice.
    Raises:
        DataError: all rows of the data set, or none, would be held out.
    """
    assert 0 < fraction < 1, "the schema has these limits"
    if not isinstance(data, Sized):
        return _Side(seed, fraction, False).of_stream(data), _Side(seed, fraction, True).of_stream(data)
    is_held_out = held_out(seed, fraction, 0, len(data))
    training, measured = np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)
    for rows, what in ((measured, "holds out none"), (training, "holds out all")):
        if not len(rows):
            raise DataError(
                f"data.validation_fraction={fraction:g} {what} of {len(data)} rows; choose another fraction, or name "
                "rows to measure on: --set eval_dataset.name=..."
            )
    sides = (_Side(seed, fraction, False), _Side(seed, fraction, True))
    return choose_rows(data, training, sides[0].choice), choose_rows(data, measured, sides[1].choice)


def held_out(seed: int, fraction: float, first: int, count: int) -> np.ndarray:
    """[count] whether rows `first` to `first + count` are held out: draw i of a generator decides row i."""
    draws = np.random.PCG64([seed, SPLIT]).advance(first).random_raw(count)
    return draws < np.uint64(int(fraction * 2**64))


class _Side:
    """One of the two parts; called with a row's number, it says whether the row is in it."""

    def __init__(self, seed: int, fraction: float, is_held_out: bool) -> None:
        self._seed = seed
        self._fraction = fraction
        self._is_held_out = is_held_out
        self._decided: tuple[int, list[bool]] | None = None

    @property
    def choice(self) -> str:
        """Which rows these are, in words."""
        return f"{'held out' if self._is_held_out else 'training'}, fraction {self._fraction!r}, seed {self._seed}"

    def __call__(self, row: int) -> bool:
        block, place = divmod(row, BLOCK)
        if self._decided is None or self._decided[0] != block:
            decided = held_out(self._seed, self._fraction, block * BLOCK, BLOCK) == self._is_held_out
            self._decided = (block, decided.tolist())
        return self._decided[1][place]

    def of_stream(self, stream: Stream) -> Stream:
        """The rows of a stream that are on this side.

        A mixture is divided source by source: where a source repeats, its rows must stay on their side.
        """
        if not isinstance(stream, MixtureStream):
            return StreamView(stream, self.choice, self)
        sources = [
            replace(source, data=self._of_source(number).of_stream(source.data))
            for number, source in enumerate(stream.sources)
        ]
        return MixtureStream(sources, stream.rules)

    def _of_source(self, number: int) -> "_Side":
        return _Side(derived_seed(self._seed, number), self._fraction, self._is_held_out)
