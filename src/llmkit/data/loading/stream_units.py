"""What becomes of a stream's rows on the way to a step: items one by one, or the units of a whole block."""

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Generic, TypeVar

import numpy as np

from llmkit.config.schema import BatchConfig
from llmkit.data.contract import Encoded, Stream
from llmkit.data.counts import RowCounts
from llmkit.data.loading.drawing import draw_units
from llmkit.data.loading.intake import EpochWatch, Place, Unit, item_tokens, single_units, take_in
from llmkit.data.loading.stream_blocks import Block, BlockOrder, StreamPosition, ended_early
from llmkit.data.preparing.encode_pool import Readable
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError

T = TypeVar("T")
Result = Encoded[T] | DataError


@dataclass(frozen=True)
class StreamUnits(Generic[T]):
    """Draws units from a stream.

    Attributes:
        stream: the rows.
        order: the blocks.
        encode: makes of rows what is trained, one result per row; reads a little ahead.
        batch: which items of a block come together; its `pack_length` is set.
        errors: what happens to faulty rows.
    """

    stream: Stream
    order: BlockOrder
    encode: Callable[[Iterable[Readable]], Generator[Result[T], None, None]]
    batch: BatchConfig
    errors: RowErrors

    def draw(self, position: StreamPosition) -> Generator[Unit[T, StreamPosition], None, None]:
        """Units from `position` on, epoch after epoch without end.

        Raises:
            DataError: the stream cannot be read or has no rows, a row is faulty and not skipped, or a whole epoch was
                left out.
        """
        with closing(self.order.blocks(self.stream, position)) as blocks:
            first = next(blocks)
            all_blocks = chain([first], blocks)
            if first.takes_lengths:
                yield from self._units_of_blocks(self._encoded_apart(all_blocks))
            elif self.batch.packing != "none":
                with closing(self._encoded_in_a_row(all_blocks)) as encoded:
                    yield from self._units_of_blocks(encoded)
            else:
                with closing(self._encoded_rows(all_blocks)) as encoded:
                    yield from single_units(encoded, self.errors)

    def _encoded_rows(self, blocks: Iterable[Block]) -> Generator[tuple[Place[StreamPosition], Result[T]], None, None]:
        """Rows one by one; those that were handed out before are read, but not encoded."""
        # Rows are read ahead of their results; where each one lies waits here.
        places: deque[Place[StreamPosition]] = deque()

        def rows() -> Iterator[Readable]:
            for block in blocks:
                before = block.position
                if before.taken and before.taken >= block.num_rows:
                    raise ended_early(before)
                for taken, row in enumerate(block.drawn(before.taken), start=before.taken + 1):
                    whole = taken == block.num_rows
                    places.append(Place(before, block.end if whole else replace(before, taken=taken, items=0)))
                    before = places[-1].after
                    yield row

        with closing(self.encode(rows())) as results:
            for result in results:
                yield places.popleft(), result

    def _encoded_in_a_row(self, blocks: Iterable[Block]) -> Generator[tuple[Block, Iterable[Result[T]]], None, None]:
        """Blocks with the results of all their rows, to be fetched before the next block is asked for."""
        begun: deque[Block] = deque()

        def rows() -> Iterator[Readable]:
            for block in blocks:
                begun.append(block)
                yield from block.drawn()

        with closing(self.encode(rows())) as results:
            for result in results:
                block = begun.popleft()
                yield block, chain([result], islice(results, block.num_rows - 1))

    def _encoded_apart(self, blocks: Iterable[Block]) -> Generator[tuple[Block, Iterable[Result[T]]], None, None]:
        """The same, but nothing of the next block is read before: what it holds may depend on this one's lengths."""
        for block in blocks:
            with closing(self.encode(block.drawn())) as results:
                yield block, results

    def _units_of_blocks(
        self, blocks: Iterable[tuple[Block, Iterable[Result[T]]]]
    ) -> Generator[Unit[T, StreamPosition], None, None]:
        """The units of one block after the other."""
        watch, counts = EpochWatch(), RowCounts()
        for block, results in blocks:
            watch.enter(block.position, counts)
            items, lengths = self._take_in(block, results, counts)
            start = block.position
            if start.taken:
                # The block was counted when its first unit was handed out.
                counts = RowCounts()
            units = draw_units(
                lengths, self.batch, self.order.seed, start.epoch, start.block, shuffle=self.order.shuffle
            )
            if start.taken and start.taken >= len(units):
                raise ended_early(start)
            for taken in range(start.taken + 1, len(units) + 1):
                watch.found = True
                numbers = units.between(taken - 1, taken)
                after = block.end if taken == len(units) else replace(start, taken=taken)
                drawn = tuple(pickle.loads(items[number]) for number in numbers.tolist())
                yield Unit(drawn, int(lengths[numbers].sum()), counts, after)
                counts = RowCounts()

    def _take_in(self, block: Block, results: Iterable[Result[T]], counts: RowCounts) -> tuple[list[bytes], np.ndarray]:
        """The items of a block and their lengths; the block's reader is told what it wants to know."""
        # A pickled sample takes a fifth of the memory of its lists of numbers.
        items: list[bytes] = []
        lengths: list[int] = []
        tokens_of_rows: list[int] = []
        for result in results:
            taken = take_in(result, self.errors, counts)
            items += [pickle.dumps(item, pickle.HIGHEST_PROTOCOL) for item in taken]
            lengths += [item_tokens(item, result) for item in taken]
            tokens_of_rows.append(0 if isinstance(result, DataError) else result.num_tokens)
        block.report(tokens_of_rows)
        return items, np.array(lengths, np.int64)
