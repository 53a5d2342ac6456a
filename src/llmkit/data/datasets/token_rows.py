"""Stored token sequences as rows: one each, or windows over all of them."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmkit.data.files.local_file import LocalFile
from llmkit.data.stores.contract import Tokens, TokenSequences
from llmkit.errors import DataError
from llmkit.types import Record, Sample, Source


@dataclass(frozen=True)
class Cut:
    """How windows are cut from sequences laid end to end.

    Attributes:
        window: tokens of a window.
        stride: tokens from the start of one to the start of the next, at most `window`.
        train_overlap: train what a window shares with the one before it again.
        eos_token_id: token behind every sequence; None puts none.
        drop_last: leave out a last window that is not full.
    """

    window: int
    stride: int
    train_overlap: bool = False
    eos_token_id: int | None = None
    drop_last: bool = False


class SequenceRows:
    """A row of each sequence."""

    def __init__(self, sequences: TokenSequences, options: Mapping[str, Any], limit: int | None = None) -> None:
        """
        Args:
            sequences: what is stored.
            options: how it is read, for the fingerprint.
            limit: most rows; None gives all.
        Raises:
            DataError: there is no sequence.
        """
        if not len(sequences):
            raise DataError(f"{sequences.files[0]}: no token sequences")
        self._sequences = sequences
        self._looks = [LocalFile(file) for file in sequences.files]
        self._options = options
        self._length = len(sequences) if limit is None else min(limit, len(sequences))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._length:
            raise IndexError(index)
        return _record(*_trained(self._sequences.read(index)), self._sequences.source(index))

    def fingerprint(self) -> str:
        """The same for the same contents of the files, read in the same way."""
        return _fingerprint(self._looks, self._options)


class WindowRows:
    """Windows over all sequences, laid end to end.

    The last window is shorter where the tokens end. It is never a single token, which nothing could predict: then it
    takes the token before along. A row's place is that of the sequence with its first token.
    """

    def __init__(
        self, sequences: TokenSequences, cut: Cut, options: Mapping[str, Any], limit: int | None = None
    ) -> None:
        """Find where every sequence lies.

        Args:
            sequences: what is stored.
            cut: how windows are cut from it.
            options: how it is read, for the fingerprint.
            limit: most rows; None gives all.
        Raises:
            DataError: there are too few tokens for a window.
        """
        self._sequences = sequences
        self._cut = cut
        self._looks = [LocalFile(file) for file in sequences.files]
        self._options = options
        self._ends = np.cumsum(sequences.lengths + (cut.eos_token_id is not None))
        self._num_tokens = int(self._ends[-1]) if len(self._ends) else 0
        num_rows = _num_windows(self._num_tokens, cut)
        if not num_rows:
            raise DataError(
                f"{sequences.files[0]}: {self._num_tokens} tokens in {len(sequences)} sequences make no window of "
                f"{cut.window}"
            )
        self._length = num_rows if limit is None else min(limit, num_rows)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < self._length:
            raise IndexError(index)
        cut = self._cut
        start = index * cut.stride
        end = min(start + cut.window, self._num_tokens)
        known = cut.window - cut.stride if index else 0
        if end - start == 1 and index:
            start, known = start - 1, 1
        token_ids, weights = self._read(start, end)
        if not cut.train_overlap:
            weights[:known] = 0.0
        first = int(np.searchsorted(self._ends, start, side="right"))
        return _record(token_ids, weights, self._sequences.source(first))

    def fingerprint(self) -> str:
        """The same for the same contents of the files, cut in the same way."""
        return _fingerprint(self._looks, self._options)

    def _read(self, start: int, end: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens `[start, end)` of all, and their weights."""
        eos = self._cut.eos_token_id
        ids: list[np.ndarray] = []
        weights: list[np.ndarray] = []
        index = int(np.searchsorted(self._ends, start, side="right"))
        while start < end:
            sequence_end = int(self._ends[index])
            length = sequence_end - (int(self._ends[index - 1]) if index else 0)
            first = length - (sequence_end - start)
            last = length - max(0, sequence_end - end)
            own_length = length - (eos is not None)
            if first < own_length:
                piece = _trained(self._sequences.read(index, first, min(last, own_length)))
                ids.append(piece[0])
                weights.append(piece[1])
            if eos is not None and last == length:
                ids.append(np.array([eos]))
                weights.append(np.ones(1))
            start, index = sequence_end, index + 1
        return np.concatenate(ids), np.concatenate(weights)


def _num_windows(num_tokens: int, cut: Cut) -> int:
    """How many windows it takes to cover the tokens; only full ones with `drop_last`."""
    beyond_first = num_tokens - cut.window
    if beyond_first <= 0:
        return int(beyond_first == 0 or (num_tokens > 0 and not cut.drop_last))
    return 1 + (beyond_first // cut.stride if cut.drop_last else -(-beyond_first // cut.stride))


def _trained(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
    """Ids and weights; 1 each where the store says nothing."""
    ids, weights = tokens
    return ids, np.ones(len(ids)) if weights is None else np.array(weights, np.float64)


def _record(token_ids: np.ndarray, weights: np.ndarray, source: Source) -> Record:
    # Nothing comes before the first token that could predict it.
    weights[:1] = 0.0
    return Record((), source, tokens=Sample(token_ids.tolist(), weights.tolist(), source))


def _fingerprint(looks: Sequence[LocalFile], options: Mapping[str, Any]) -> str:
    contents = [(look.path.suffix, look.content_hash()) for look in looks]
    return hashlib.sha256(json.dumps([contents, options], sort_keys=True).encode()).hexdigest()
