"""One source in the course of reading a mixture of streams."""

import logging
from collections.abc import Mapping
from typing import Any

from llmkit.data.contract import RowReader, Stream, TakesLengths, to_record
from llmkit.data.mixtures.mixture_source import MixtureSource
from llmkit.errors import DataError, SourceError
from llmkit.types import Record

logger = logging.getLogger(__name__)


class SourceReader:
    """Reads a source, pass after pass, and counts what it gave.

    Attributes:
        told_rows: rows given whose lengths were told.
        told_tokens: their tokens.
        through_at: the level at which the first pass was through; None before that.
        is_out: there is nothing more to come.
        has_part: whether it has rows, and they have tokens; a source without either is left out.
    """

    def __init__(self, source: MixtureSource[Stream], repeats: bool, state: Mapping[str, Any] = {}) -> None:
        """
        Args:
            source: its rows.
            repeats: begin again when a pass is through.
            state: what `state` said, to go on from there; empty begins with the first row.
        Raises:
            DataError: the source is not the one that the state belongs to.
        """
        self._source = source
        self._repeats = repeats
        self._reader: RowReader | None = None
        self._reader_takes_lengths = False
        self._num_read: int = state.get("num_read", 0)
        self._num_given: int = state.get("num_given", 0)
        self._untold_of_former_passes: int = state.get("untold_of_former_passes", 0)
        self.told_rows: int = state.get("told_rows", 0)
        self.told_tokens: int = state.get("told_tokens", 0)
        self.through_at: float | None = state.get("through_at")
        self.is_out: bool = state.get("is_out", False)
        self.has_part: bool = state.get("has_part", True)
        if state.get("position") is not None:
            self._open(state["position"])

    def state(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        return {
            "position": self._reader.position if self._reader is not None else None,
            "num_read": self._num_read,
            "num_given": self._num_given,
            "untold_of_former_passes": self._untold_of_former_passes,
            "told_rows": self.told_rows,
            "told_tokens": self.told_tokens,
            "through_at": self.through_at,
            "is_out": self.is_out,
            "has_part": self.has_part,
        }

    def level(self, mean: float | None) -> float:
        """What it has given over its weight: rows, or tokens where the mean length of all sources' rows is given.

        Rows that were not told yet count as the mean of this source; before the first is told, as that of all.
        """
        if mean is None:
            return self._num_given / self._source.weight
        untold = self._num_given - self.told_rows
        own_mean = self.told_tokens / self.told_rows if self.told_rows else mean
        return (self.told_tokens + untold * own_mean) / self._source.weight

    def take(self, level: float) -> Record | None:
        """The next row; None when the pass is through.

        Args:
            level: where the source stands, to remember when its first pass is through.
        Raises:
            DataError: the row cannot be read; the one after it comes next.
        """
        reader = self._reader or self._open_anew()
        try:
            row = next(reader)
            self._num_read += 1
            record = to_record(row, self._source.formatter)
        except StopIteration:
            self._end_pass(level)
            return None
        except DataError as error:
            raise self._source.told(error) from None
        self._num_given += 1
        return record

    def tell(self, num_tokens: int) -> None:
        """The length of the oldest row that was given and not told yet."""
        self.told_rows += 1
        self.told_tokens += num_tokens
        if self._untold_of_former_passes:
            self._untold_of_former_passes -= 1
        elif self._reader_takes_lengths and isinstance(self._reader, TakesLengths):
            self._reader.report([num_tokens])

    def close(self) -> None:
        """Let go of files."""
        if self._reader is not None:
            self._reader.close()

    def _open(self, position: Any) -> RowReader:
        try:
            self._reader = self._source.data.open(position)
        except DataError as error:
            raise self._source.told(error) from None
        # The answer is kept: to ask a reader what it can do takes longer than to read a row.
        self._reader_takes_lengths = isinstance(self._reader, TakesLengths)
        return self._reader

    def _open_anew(self) -> RowReader:
        try:
            return self._open(None)
        except DataError as error:
            raise SourceError(str(error)) from None  # no row is at fault that could be left out

    def _end_pass(self, level: float) -> None:
        self.close()
        self._reader = None
        is_empty = self._num_read == 0
        if is_empty or (self.told_rows and not self.told_tokens):
            what = "it has no rows" if is_empty else "no row of it has tokens"
            logger.warning("%s takes no part in the mixture: %s", self._source.place, what)
            self.has_part = False
        if self.through_at is None:
            self.through_at = level
        self.is_out = not (self._repeats and self.has_part)
        self._untold_of_former_passes = self._num_given - self.told_rows
        self._num_read = 0
