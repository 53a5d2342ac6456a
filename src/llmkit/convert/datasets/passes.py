"""Rows on their way from one form to another: read, rewritten, filtered, drawn and divided, one at a time."""

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.convert.datasets.expression import Condition
from llmkit.convert.datasets.tally import Lines, Tally
from llmkit.convert.datasets.writing import STORES, as_json
from llmkit.data.contract import Dataset, Formatter, Stream, choose_formatter, to_record
from llmkit.data.every_row import every_row
from llmkit.data.files.reading import open_stream
from llmkit.errors import DataError
from llmkit.types import Record, Row


@dataclass(frozen=True)
class Choice:
    """Which rows are written, in this order.

    Attributes:
        min_characters: of all texts in a row; None sets no limit.
        max_characters: the same.
        where: what a row must fulfil; None takes all.
        unique: of rows that are written alike, the first.
        sample: so many of what is left by then, drawn at random, in their order.
        limit: most rows, from the start.
        seed: of what is drawn.
    """

    min_characters: int | None = None
    max_characters: int | None = None
    where: Condition | None = None
    unique: bool = False
    sample: int | None = None
    limit: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Item:
    """One row to be written.

    Attributes:
        values: as it is written.
        record: that it was made from; None where rows are copied as they are.
    """

    values: Mapping[str, Any]
    record: Record | None


class Rows:
    """The rows of a conversion, which can be read again.

    Attributes:
        tally: of the last pass.
        source: what they are read from.
        reader: the formatter that reads; None where rows are copied.
    """

    def __init__(self, source: Dataset | Stream, reader: Formatter | None, writer: Formatter | None, choice: Choice):
        self.tally = Tally()
        self.source = source
        self.reader = None if reader is None else choose_formatter(reader, source)
        self._writer = writer
        self._choice = choice
        self._drawn: frozenset[int] | None = None

    @property
    def are_copied(self) -> bool:
        """Whether all rows are written, as they are."""
        return self._writer is None and replace(self._choice, seed=0) == Choice()

    def begin(self) -> Tally:
        """Begin to count anew."""
        self.tally = Tally()
        return self.tally

    def draw(self) -> None:
        """Find which rows are the sample; reads all of them once."""
        if self._choice.sample is not None:
            count = sum(1 for _ in self._chosen())
            wanted = min(self._choice.sample, count)
            self._drawn = frozenset(random.Random(self._choice.seed).sample(range(count), wanted))

    def __iter__(self) -> Iterator[Item]:
        count = 0
        for index, item in enumerate(self._chosen()):
            if self._drawn is None or index in self._drawn:
                if count == self._choice.limit:
                    return
                count += 1
                yield item

    def _chosen(self) -> Iterator[Item]:
        tally, lines = self.begin(), Lines()
        seen: set[bytes] = set()
        for raw in every_row(self.source):
            tally.read += 1
            lines.tell(tally.read)
            try:
                if isinstance(raw, DataError):
                    raise raw
                item = self._rewritten(raw)
                if not self._fits(item, raw.source):
                    tally.filtered += 1
                    continue
                if self._choice.unique:
                    # 16 bytes of a hash: two different rows share one with a chance of 2**-128 for each pair.
                    mark = hashlib.blake2b(as_json(item.values).encode(), digest_size=16).digest()
                    if mark in seen:
                        tally.repeated += 1
                        continue
                    seen.add(mark)
            except DataError as error:
                tally.add_fault(error)
                continue
            yield item

    def _rewritten(self, raw: Row | Record) -> Item:
        if self._writer is None and isinstance(raw, Row):
            return Item(raw.values, None)
        assert self.reader is not None, "records come with a formatter to write them"
        record = to_record(raw, self.reader)
        return Item({} if self._writer is None else self._writer.from_record(record), record)

    def _fits(self, item: Item, place: object) -> bool:
        choice = self._choice
        if choice.min_characters is not None or choice.max_characters is not None:
            count = _characters(item.values)
            if count < (choice.min_characters or 0):
                return False
            if choice.max_characters is not None and count > choice.max_characters:
                return False
        return choice.where is None or choice.where.holds(item.values, place)


def open_source(paths: list[Path], file_type: str | None) -> Dataset | Stream:
    """The rows of files, or the token sequences of a store."""
    if len(paths) == 1 and paths[0].suffix.lower() in STORES and file_type is None:
        plugin = plugins.load("datasets", "tokens")
        return plugin.build(plugin.Config(path=str(paths[0])))
    return open_stream([str(path) for path in paths], file_type=file_type)  # type: ignore[arg-type]


def _characters(value: Any) -> int:
    """Characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(_characters(item) for item in value.values())
    return sum(_characters(item) for item in value) if isinstance(value, list | tuple) else 0
