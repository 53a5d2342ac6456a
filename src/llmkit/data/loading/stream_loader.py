"""Steps of a stream that is larger than memory: a block of its rows is read, shuffled and handed out at a time."""

from collections.abc import Generator, Mapping
from contextlib import closing
from functools import partial
from typing import Any, Generic, NoReturn, TypeVar

from llmkit.config.schema import BatchConfig
from llmkit.data.contract import Encoder, Formatter, Stream, choose_formatter
from llmkit.data.counts import RowCounts
from llmkit.data.loading.intake import read_items
from llmkit.data.loading.sampler import check_identity
from llmkit.data.loading.steps import StepDrawer
from llmkit.data.loading.stream_blocks import BlockOrder, StreamPosition, read_rows
from llmkit.data.loading.stream_units import StreamUnits
from llmkit.data.preparing.encode_pool import Readable, encode_rows
from llmkit.data.row_errors import RowErrors
from llmkit.errors import ConfigError

T = TypeVar("T")
_CHUNK_ROWS = 64
"""Rows that are read together where nothing is shuffled."""


class StreamLoader(Generic[T]):
    """A `Loader` of a stream, in memory that a block bounds.

    Its state holds where the stream stood at the start of the block and what was handed out of it: to resume, it reads
    one block again and goes on at the exact item.
    """

    def __init__(
        self,
        stream: Stream,
        formatter: Formatter,
        encoder: Encoder[T],
        batch: BatchConfig,
        *,
        seed: int,
        shuffle: bool,
        shuffle_block: int,
        max_length: int,
        errors: RowErrors,
        num_workers: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """
        Args:
            stream: the rows.
            formatter: reads them; one that chooses by the rows does so now.
            encoder: makes of records what is trained.
            batch: items of a step, and which of a block's items come together.
            seed: the order in a block depends on it, the epoch and the block's number alone.
            shuffle: off keeps the order of the stream.
            shuffle_block: rows of a block.
            max_length: most tokens of an item; the default of `batch.pack_length`.
            errors: what happens to faulty rows.
            num_workers: processes that encode; 0 does it in this one.
            rank: of this process, from 0; each one reads and encodes all of the stream.
            world_size: processes that share each step.
        Raises:
            DataError: no formatter fits, or several do.
        """
        self._stream = stream
        self._formatter = choose_formatter(formatter, stream)
        self._encode = partial(encode_rows, formatter=self._formatter, encoder=encoder)
        self._batch = batch.model_copy(update={"pack_length": batch.pack_length or max_length})
        self._order = BlockOrder(shuffle_block, seed, shuffle)
        self._errors = errors
        self._num_workers = num_workers
        encode = partial(self._encode, num_workers=num_workers)
        units = StreamUnits(stream, self._order, encode, self._batch, errors)
        self._steps = StepDrawer(units.draw, StreamPosition(), batch, errors, rank=rank, world_size=world_size)

    @property
    def num_rows(self) -> None:
        """Nobody knows."""

    @property
    def epoch(self) -> float:
        """Epochs passed; the share of the present one counts once an epoch has shown how many rows there are."""
        position = self._steps.position
        if position.epoch_rows is None:
            return float(position.epoch)
        taken = position.taken if self._batch.packing == "none" else 0
        return position.epoch + min(1.0, (position.first_row + taken) / position.epoch_rows)

    @property
    def counts(self) -> RowCounts:
        return self._steps.counts

    def next_step(self) -> list[T]:
        return self._steps.next_step()

    def num_steps(self, num_epochs: float) -> NoReturn:
        """
        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"max_steps must be set for a stream: how many rows it has is not known, so num_epochs={num_epochs:g} does "
            "not say when to stop (--max-steps N)"
        )

    def read_all(self, limit: int | None = None) -> list[T]:
        """As `Loader.read_all`; the rows are counted."""
        with (
            closing(self._first_rows(limit)) as rows,
            closing(self._encode(rows, num_workers=self._num_workers)) as results,
        ):
            return read_items(results, self._errors, self.counts)

    def first(self, count: int) -> list[T]:
        rows = self._first_rows(None)
        with closing(rows), closing(self._encode(rows, num_workers=0, chunk_rows=max(1, count))) as results:
            return read_items(results, self._errors, RowCounts(), limit=count)

    def state_dict(self) -> dict[str, Any]:
        return {**self._identity(), **self._steps.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity(state, self._identity())
        self._steps.load_state_dict(state)

    def close(self) -> None:
        self._steps.close()

    def _first_rows(self, limit: int | None) -> Generator[Readable, None, None]:
        """The rows of a pass of its own, as they come."""
        reader = self._stream.open()
        num_read = 0
        try:
            while limit is None or num_read < limit:
                rows = read_rows(reader, _CHUNK_ROWS if limit is None else min(_CHUNK_ROWS, limit - num_read))
                if not rows:
                    return
                yield from rows
                num_read += len(rows)
        finally:
            reader.close()

    def _identity(self) -> dict[str, Any]:
        """What the order follows from."""
        own: dict[str, Any] = {"seed": self._order.seed, "shuffle": self._order.shuffle}
        # Without shuffling and packing, blocks matter too: a position is the start of one.
        own |= {"shuffle_block": self._order.num_rows, "packing": self._batch.packing}
        if self._batch.packing == "best_fit":
            own |= {"pack_length": self._batch.pack_length}
        if self._batch.packing == "length":
            own |= {"rows_per_step": self._batch.rows_per_step, "tokens_per_step": self._batch.tokens_per_step}
        return own
