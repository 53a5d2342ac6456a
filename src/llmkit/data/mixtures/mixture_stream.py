"""A mixture of streams: the next row is of the source that is furthest behind its share."""

from collections import deque
from collections.abc import Sequence
from typing import Any, Self

from llmkit.data.contract import Stream
from llmkit.data.mixtures.mixture_source import MixtureRules, MixtureSource
from llmkit.data.mixtures.mixture_turns import SourceReader
from llmkit.data.row_views import fingerprint_of
from llmkit.errors import ConfigError, DataError
from llmkit.types import Record

MAX_UNTOLD = 2**20
"""Rows given without a word about their lengths, before it is an error that nobody tells them."""


class MixtureStream:
    """The rows of several streams, each read by its own formatter. It has a fingerprint when all sources have one."""

    def __init__(self, sources: Sequence[MixtureSource[Stream]], rules: MixtureRules) -> None:
        self.sources = tuple(sources)
        self.rules = rules
        if all(source.has_fingerprint for source in sources):
            # An attribute and not a method: a mixture of rows that nobody can identify must not seem `Fingerprinted`.
            self.fingerprint = self._fingerprint

    @property
    def needs_lengths(self) -> bool:
        """Whether its readers must be told the tokens of every row; see `contract.TakesLengths`."""
        return self.rules.by_tokens or any(getattr(source.data, "needs_lengths", False) for source in self.sources)

    def open(self, position: Any = None) -> "MixtureReader":
        """Begin a pass; see `contract.Stream`."""
        if position is not None and len(position["sources"]) != len(self.sources):
            raise DataError(
                f"the position is of a mixture of {len(position['sources'])} sources, this one has "
                f"{len(self.sources)}; use the same data"
            )
        reader = BalancedMixtureReader if self.needs_lengths else MixtureReader
        return reader(self.sources, self.rules, position)

    def _fingerprint(self) -> str:
        """Of the rows and of everything that decides their order."""
        weights = [source.weight for source in self.sources]
        return fingerprint_of(
            "mixture stream", repr(self.rules), repr(weights), *(source.fingerprint() for source in self.sources)
        )


class MixtureReader:
    """A pass over a mixture.

    By the same keys as `mixing.interleave`: without shuffling, and with every length told before the next row is asked
    for, both give the same rows in the same order.
    """

    def __init__(self, sources: Sequence[MixtureSource[Stream]], rules: MixtureRules, position: Any) -> None:
        repeats = rules.strategy == "interleave" and rules.stopping == "all_exhausted"
        states = position["sources"] if position is not None else [{}] * len(sources)
        self._rules = rules
        self._turns = [SourceReader(source, repeats, state) for source, state in zip(sources, states, strict=True)]

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Record:
        return self._take()[1]

    @property
    def position(self) -> dict[str, Any]:
        """The positions of all sources, and what each has given."""
        return {"sources": [turn.state() for turn in self._turns]}

    def close(self) -> None:
        """Close the readers of all sources."""
        for turn in self._turns:
            turn.close()

    def _take(self) -> tuple[int, Record]:
        """The next row and the number of its source; StopIteration at the end."""
        while True:
            mean = self._mean_length()
            levels = [turn.level(mean) for turn in self._turns]
            number = self._choose(levels)
            record = self._turns[number].take(levels[number])
            if record is not None:
                return number, record

    def _choose(self, levels: Sequence[float]) -> int:
        """Number of the source whose turn it is, by the level of each; StopIteration at the end."""
        live = [number for number, turn in enumerate(self._turns) if not turn.is_out]
        if not live:
            raise StopIteration
        if self._rules.strategy == "concatenate":
            return live[0]
        # Where levels are equal, a source in its first pass goes before those that repeat, and so ends them in time.
        chosen = min(live, key=lambda number: (levels[number], self._turns[number].through_at is not None))
        if self._is_over(levels[chosen]):
            raise StopIteration
        return chosen

    def _mean_length(self) -> float | None:
        """Tokens that a row of unknown length counts for; None where rows are counted."""
        return None

    def _is_over(self, level: float) -> bool:
        """Whether the mixture ends before the row at a level: the sources that decide it are through."""
        if self._rules.stopping == "without_replacement":
            return False
        ends = [turn.through_at for turn in self._turns if turn.has_part]
        told = [end for end in ends if end is not None]
        if self._rules.stopping == "first_exhausted":
            return bool(told)
        return len(told) == len(ends) and level >= max(told, default=0.0)


class BalancedMixtureReader(MixtureReader):
    """A pass over a mixture that shares tokens, or has such a mixture among its sources."""

    def __init__(self, sources: Sequence[MixtureSource[Stream]], rules: MixtureRules, position: Any) -> None:
        super().__init__(sources, rules, position)
        self._untold: deque[int] = deque(position["untold"] if position is not None else ())

    def __next__(self) -> Record:
        number, record = self._take()
        self._untold.append(number)
        if len(self._untold) > MAX_UNTOLD:
            raise ConfigError(
                f"dataset.weights_by=tokens needs the tokens of every row, and nobody told those of the last "
                f"{MAX_UNTOLD:,} rows; choose --set dataset.weights_by=rows, or a smaller data.shuffle_block"
            )
        return record

    @property
    def position(self) -> dict[str, Any]:
        """The positions of all sources, what each has given, and of which source each row is that was not told yet."""
        return {**super().position, "untold": list(self._untold)}

    def report(self, num_tokens: Sequence[int]) -> None:
        """Tell the lengths of rows; see `contract.TakesLengths`. Sources that want to know are told theirs."""
        assert len(num_tokens) <= len(self._untold), "more lengths than rows were given"
        for length in num_tokens:
            self._turns[self._untold.popleft()].tell(length)

    def _mean_length(self) -> float | None:
        if not self._rules.by_tokens:
            return None
        num_rows = sum(turn.told_rows for turn in self._turns)
        return sum(turn.told_tokens for turn in self._turns) / num_rows if num_rows else 1.0
