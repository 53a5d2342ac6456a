"""In which order the rows of several sources follow one another: pure functions on row numbers.

Interleaving draws nothing. A row's key is what its source has given before it, in rows or tokens, over the source's
weight; rows come by their keys, at equal keys those of first passes before repeated ones, then by source. With a
source's share s = weight / sum of weights, after N rows of k sources it has given at most N s + 1 rows and at least
N s - (k - 1) s: with two sources, or equal weights, it is always within one row of its share. By tokens the same holds
with the longest row in place of one row.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from llmkit.errors import DataError

Stopping = Literal["first_exhausted", "all_exhausted", "without_replacement"]
MAX_EPOCH_ROWS = 2**28
"""An epoch of more rows is a mistake in the weights: its order alone would take gigabytes."""


class Passes(Protocol):
    """What a source gives, pass after pass over its rows."""

    def __call__(self, first: int, count: int) -> np.ndarray:
        """Row numbers of `count` passes one after the other, from pass `first` (from 0)."""
        ...


@dataclass(frozen=True, slots=True)
class Track:
    """One source of an interleaving.

    Attributes:
        passes: its rows.
        weight: its share is this over the sum of all weights.
    """

    passes: Passes
    weight: float


def passes_in_order(num_rows: int, first: int, count: int) -> np.ndarray:
    """[count * num_rows] row numbers of `count` passes, each in the order of the rows."""
    return np.tile(np.arange(num_rows), count)


def shuffled_passes(num_rows: int, first: int, count: int, key: Sequence[int]) -> np.ndarray:
    """[count * num_rows] row numbers of `count` passes from pass `first`, each in a random order of its own.

    The order of a pass depends on `key` (whole numbers from 0), the number of rows and the pass alone, on every machine
    and version.
    """
    # NumPy promises that raw bits stay the same from version to version, but not what `permutation` makes of them.
    bits = np.random.PCG64(list(key)).advance(first * num_rows)
    keys = bits.random_raw(count * num_rows).reshape(count, num_rows)
    return np.argsort(keys, axis=1, kind="stable").ravel()


def derived_seed(*key: int) -> int:
    """A seed made of whole numbers from 0."""
    return int(np.random.PCG64(list(key)).random_raw()) >> 1


def interleave(tracks: Sequence[Track], stopping: Stopping, lengths: np.ndarray | None = None) -> np.ndarray:
    """Rows of all sources, so that at every prefix each has its share.

    Args:
        tracks: the sources; no two give the same row number.
        stopping: `first_exhausted` ends where the source that is through first would have to go on; `all_exhausted`
            ends where the one that is through last would, the others repeat until then; `without_replacement` gives
            every row once.
        lengths: [N] tokens by row number, to share tokens; None shares rows. But for `without_replacement`, a source
            whose rows have no tokens at all takes no part.
    Returns: row numbers.
    Raises:
        DataError: sources would have to repeat so often that the epoch has more than `MAX_EPOCH_ROWS` rows.
    """
    firsts = [track.passes(0, 1) for track in tracks]
    pieces = firsts if stopping == "without_replacement" else _until_the_end(tracks, firsts, stopping, lengths)
    keys = [_keys(rows, track.weight, lengths) for rows, track in zip(pieces, tracks, strict=True)]
    # Each source's keys ascend, so that a stable sort only merges: time is linear, and ties stay in this order.
    halves = [slice(None, len(rows)) for rows in firsts], [slice(len(rows), None) for rows in firsts]
    rows_of_halves = [rows[half] for part in halves for rows, half in zip(pieces, part, strict=True)]
    keys_of_halves = [key[half] for part in halves for key, half in zip(keys, part, strict=True)]
    return np.concatenate(rows_of_halves)[np.argsort(np.concatenate(keys_of_halves), kind="stable")]


def _until_the_end(
    tracks: Sequence[Track], firsts: Sequence[np.ndarray], stopping: Stopping, lengths: np.ndarray | None
) -> list[np.ndarray]:
    """Each source's rows up to where the mixture ends, given the rows of the first passes."""
    totals = [_amount(rows, lengths) for rows in firsts]
    ends = {index: total / tracks[index].weight for index, total in enumerate(totals) if total > 0}
    if not ends:
        return [rows[:0] for rows in firsts]
    last = (min if stopping == "first_exhausted" else max)(ends, key=lambda index: ends[index])
    pieces: list[np.ndarray] = []
    for index, (track, rows) in enumerate(zip(tracks, firsts, strict=True)):
        if index not in ends:
            pieces.append(rows[:0])
        elif index == last:
            pieces.append(rows)
        else:
            rows = _repeated(track, rows, ends[last], lengths)
            # A source before the one that is through gives its row at that key first.
            side = "right" if stopping == "first_exhausted" and index < last else "left"
            pieces.append(rows[: np.searchsorted(_keys(rows, track.weight, lengths), ends[last], side=side)])
    return pieces


def _repeated(track: Track, rows: np.ndarray, end: float, lengths: np.ndarray | None) -> np.ndarray:
    """Rows of as many passes as it takes to come to the key `end`, given those of the first."""
    num_passes = 1
    while (total := _amount(rows, lengths)) / track.weight < end:
        needed = end * track.weight / total
        if needed * len(rows) > MAX_EPOCH_ROWS:
            raise DataError(
                f"a source of {len(rows)} rows and weight {track.weight:g} would repeat {needed:.0f} times in an epoch "
                "before the longest source is through; lower its weight, or choose stopping=without_replacement"
            )
        more = max(1, math.ceil(num_passes * (needed - 1)))
        rows = np.concatenate([rows, track.passes(num_passes, more)])
        num_passes += more
    return rows


def _amount(rows: np.ndarray, lengths: np.ndarray | None) -> int:
    return len(rows) if lengths is None else int(lengths[rows].sum())


def _keys(rows: np.ndarray, weight: float, lengths: np.ndarray | None) -> np.ndarray:
    """What the source has given before each row, over its weight; ascending."""
    if lengths is None:
        return np.arange(len(rows)) / weight
    given = np.cumsum(lengths[rows], dtype=np.int64)
    return (given - lengths[rows]) / weight
