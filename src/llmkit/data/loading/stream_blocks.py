"""A stream in blocks: rows that are read, and shuffled, together."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from llmkit.data.contract import RowReader, Stream, TakesLengths
from llmkit.data.loading.drawing import random_order
from llmkit.data.loading.intake import Position
from llmkit.data.preparing.encode_pool import Readable
from llmkit.errors import DataError


@dataclass(frozen=True, slots=True)
class StreamPosition(Position):
    """Between two rows, or two units, of a block.

    Attributes:
        block: number of the block in its epoch, from 0.
        start: position of the stream's reader at the start of the block; None is the first row.
        first_row: rows of the epoch before the block.
        taken: what was handed out of the block: rows, or units where the block is encoded as a whole.
        epoch_rows: rows of the epoch before this one; None in the first.
    """

    block: int = 0
    start: Any = None
    first_row: int = 0
    taken: int = 0
    epoch_rows: int | None = None

    @property
    def at_start(self) -> bool:
        """Nothing of the epoch was handed out."""
        return self.block == self.taken == self.items == 0


class Block:
    """Rows of a stream.

    Attributes:
        position: where the run stood when the block was read.
        end: where it stands when all of it is handed out.
        num_rows: how many there are.
        takes_lengths: whether `report` is to be called before the next block is read.
    """

    def __init__(self, position: StreamPosition, rows: list[Readable], order: np.ndarray, reader: RowReader) -> None:
        self.position = position
        self.num_rows = len(rows)
        self.takes_lengths = isinstance(reader, TakesLengths)
        self._given = np.array([not isinstance(row, DataError) for row in rows])
        self._rows = dict(enumerate(rows))
        self._order = order
        self._reader = reader
        self.end = self._find_end()

    def drawn(self, first: int = 0) -> Iterator[Readable]:
        """The rows from number `first` on in the order in which they are drawn; each is let go as it is given."""
        for number in self._order[first:].tolist():
            yield self._rows.pop(number)

    def report(self, num_tokens: Sequence[int]) -> None:
        """Tell the reader the lengths of all rows, which are given in the order in which they were drawn."""
        if isinstance(self._reader, TakesLengths):
            of_row = np.empty(self.num_rows, np.int64)
            of_row[self._order] = num_tokens
            self._reader.report(of_row[self._given].tolist())
            self.end = self._find_end()

    def _find_end(self) -> StreamPosition:
        return replace(
            self.position,
            block=self.position.block + 1,
            start=self._reader.position,
            first_row=self.position.first_row + self.num_rows,
            taken=0,
            items=0,
        )


@dataclass(frozen=True)
class BlockOrder:
    """How a stream is cut into blocks, and in which order the rows of a block are drawn.

    Attributes:
        num_rows: rows of a block; the last one of an epoch may have fewer.
        seed: the order in a block depends on it, the epoch and the block's number alone.
        shuffle: off keeps the order of the stream.
    """

    num_rows: int
    seed: int
    shuffle: bool

    def blocks(self, stream: Stream, position: StreamPosition) -> Generator[Block, None, None]:
        """The blocks from the one of `position` on, epoch after epoch without end; one is read when it is asked for.

        Raises:
            DataError: the stream has no rows, cannot be read, or ends before the position.
        """
        while True:
            reader = stream.open(position.start)
            try:
                while block := self._read(reader, position):
                    yield block
                    position = block.end
            finally:
                reader.close()
            if not position.first_row:
                raise DataError("The stream has no rows")
            if position.taken:
                raise ended_early(position)
            position = StreamPosition(position.epoch + 1, epoch_rows=position.first_row)

    def _read(self, reader: RowReader, position: StreamPosition) -> Block | None:
        rows = read_rows(reader, self.num_rows)
        return Block(position, rows, self._order(len(rows), position), reader) if rows else None

    def _order(self, num_rows: int, position: StreamPosition) -> np.ndarray:
        if self.shuffle:
            return random_order(num_rows, self.seed, position.epoch, position.block)
        return np.arange(num_rows)


def read_rows(reader: RowReader, limit: int) -> list[Readable]:
    """At most `limit` rows, in place of an unreadable one its error."""
    rows: list[Readable] = []
    while len(rows) < limit:
        try:
            rows.append(next(reader))
        except StopIteration:
            break
        except DataError as error:
            rows.append(error)
    return rows


def ended_early(position: StreamPosition) -> DataError:
    """The error of a stream that no longer has the rows that a checkpoint was past."""
    return DataError(
        f"The checkpoint is past row {position.first_row + position.taken} of the stream in epoch {position.epoch}, "
        "which now has fewer: its source has changed. Bring the former one back, or start a new run"
    )
