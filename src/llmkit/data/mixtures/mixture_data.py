"""A mixture of data sets: every row of theirs by number, and an order of epochs that has the sources' shares."""

import logging
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate

import numpy as np

from llmkit.data.contract import Dataset, Ordered, to_record
from llmkit.data.mixtures import mixing
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource
from llmkit.data.row_views import fingerprint_of
from llmkit.errors import DataError
from llmkit.types import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Epoch:
    """What `order` is asked for."""

    number: int
    seed: int
    shuffle: bool
    lengths: np.ndarray | None


class Mixture:
    """The rows of several data sets, those of the first source first, each read by its own formatter.

    It has a fingerprint when all sources have one. What rows an epoch takes of it, `order` says.
    """

    def __init__(self, sources: Sequence[MixtureSource[Dataset]], rules: MixtureRules) -> None:
        """
        Args:
            sources: each with at least one row.
            rules: how they come together.
        """
        self.sources = tuple(sources)
        self.rules = rules
        self._ends = list(accumulate(len(source.data) for source in sources))
        if all(source.has_fingerprint for source in sources):
            # An attribute and not a method: a mixture of rows that nobody can identify must not seem `Fingerprinted`.
            self.fingerprint = self._fingerprint

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._ends, index)
        source = self.sources[number]
        try:
            return to_record(source.data[index - self._start(number)], source.formatter)
        except DataError as error:
            raise source.told(error) from None

    @property
    def needs_lengths(self) -> bool:
        """Whether `order` must be given `lengths`."""
        inner = (source.data for source in self.sources)
        return self.rules.by_tokens or any(isinstance(data, Ordered) and data.needs_lengths for data in inner)

    def order(self, epoch: int, seed: int, shuffle: bool, lengths: np.ndarray | None = None) -> np.ndarray:
        """Row numbers of one epoch; see `contract.Ordered`.

        Concatenated sources are shuffled together, as one data set. Interleaved ones are shuffled each by itself, anew
        for every repeat.
        """
        if self.rules.by_tokens and lengths is None:
            raise DataError(
                "dataset.weights_by=tokens needs the tokens of every row, which nobody counts here; choose "
                "--set dataset.weights_by=rows"
            )
        wanted = _Epoch(epoch, seed, shuffle, lengths)
        order = self._concatenated(wanted) if self.rules.strategy == "concatenate" else self._interleaved(wanted)
        if not len(order):
            raise DataError("no source of the mixture has a row with tokens: all were left out")
        return order

    def _concatenated(self, epoch: "_Epoch") -> np.ndarray:
        # What is shuffled together needs no shuffling before, but a mixture inside may choose its rows by it.
        as_they_are = replace(epoch, shuffle=False)
        parts = [
            self._passes(number, epoch if isinstance(source.data, Ordered) else as_they_are, 0, 1)
            for number, source in enumerate(self.sources)
        ]
        order = np.concatenate(parts)
        return order[mixing.shuffled_passes(len(order), 0, 1, (epoch.seed, epoch.number))] if epoch.shuffle else order

    def _interleaved(self, epoch: "_Epoch") -> np.ndarray:
        tracks = [
            mixing.Track(partial(self._passes, number, epoch), source.weight)
            for number, source in enumerate(self.sources)
        ]
        if not self.rules.by_tokens:
            return mixing.interleave(tracks, self.rules.stopping)
        assert epoch.lengths is not None, "`order` has checked it"
        for number, end in enumerate(self._ends):
            if not epoch.lengths[self._start(number) : end].any():
                logger.warning("%s takes no part in the mixture: no row of it has tokens", self.sources[number].place)
        return mixing.interleave(tracks, self.rules.stopping, epoch.lengths)

    def _passes(self, number: int, epoch: "_Epoch", first: int, count: int) -> np.ndarray:
        """What one source gives in passes `first` to `first + count`, as row numbers of the mixture."""
        data, start = self.sources[number].data, self._start(number)
        if isinstance(data, Ordered):
            lengths = epoch.lengths[start : self._ends[number]] if epoch.lengths is not None else None
            seeds = [mixing.derived_seed(epoch.seed, number, repeat) for repeat in range(first, first + count)]
            return start + np.concatenate([data.order(epoch.number, seed, epoch.shuffle, lengths) for seed in seeds])
        if epoch.shuffle:
            return start + mixing.shuffled_passes(len(data), first, count, (epoch.seed, epoch.number, number))
        return start + mixing.passes_in_order(len(data), first, count)

    def _start(self, number: int) -> int:
        """The row number at which a source begins."""
        return self._ends[number - 1] if number else 0

    def _fingerprint(self) -> str:
        """Of the rows alone: their shares and their order do not change what a row is."""
        return fingerprint_of("mixture", *(source.fingerprint() for source in self.sources))
