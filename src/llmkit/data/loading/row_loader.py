"""Steps of rows that are encoded when they are drawn."""

import math
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import count as count_from
from typing import Any, Generic, TypeVar

from llmkit.config.schema import BatchConfig
from llmkit.data.contract import Dataset, Encoder, Formatter, Ordered, choose_formatter
from llmkit.data.counts import RowCounts
from llmkit.data.loading.drawing import Order, every_item
from llmkit.data.loading.intake import Place, Position, Unit, read_items, single_units
from llmkit.data.loading.sampler import check_identity
from llmkit.data.loading.steps import StepDrawer
from llmkit.data.preparing.encode_pool import encode_rows
from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError
from llmkit.types import Record, Row

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RowPosition(Position):
    """Between two rows of a data set.

    Attributes:
        num_taken: rows of the epoch that were handed out.
    """

    num_taken: int = 0

    @property
    def at_start(self) -> bool:
        """Nothing of the epoch was handed out."""
        return self.num_taken == self.items == 0


class RowLoader(Generic[T]):
    """A `Loader` of a data set's rows; `load_rows` makes one and says what the arguments are."""

    def __init__(
        self,
        dataset: Dataset,
        formatter: Formatter,
        encoder: Encoder[T],
        *,
        rows_per_step: int,
        seed: int,
        shuffle: bool,
        errors: RowErrors,
        num_workers: int,
        rank: int,
        world_size: int,
    ) -> None:
        """
        Raises:
            DataError: there are no rows, no formatter fits, or several do.
        """
        self._dataset = dataset
        self._order = _row_order(dataset, seed, shuffle)
        self._formatter = choose_formatter(formatter, dataset)
        self._encoder = encoder
        self._errors = errors
        self._num_workers = num_workers
        self._rows_per_step = rows_per_step
        self._identity = {"num_rows": len(dataset), "seed": seed, "shuffle": shuffle}
        batch = BatchConfig.model_validate({"rows_per_step": rows_per_step})
        self._steps = StepDrawer(self._draw, RowPosition(), batch, errors, rank=rank, world_size=world_size)

    @property
    def num_rows(self) -> int:
        return len(self._dataset)

    @property
    def epoch(self) -> float:
        position = self._steps.position
        return position.epoch + (position.num_taken / len(self._order(position.epoch)) if position.num_taken else 0.0)

    @property
    def counts(self) -> RowCounts:
        return self._steps.counts

    def next_step(self) -> list[T]:
        return self._steps.next_step()

    def num_steps(self, num_epochs: float) -> int:
        """As `Loader.num_steps`; rows that will be left out count, since nobody knows them yet."""
        epochs = Fraction(str(num_epochs))
        if not isinstance(self._dataset, Ordered):
            return math.ceil(epochs * self.num_rows / self._rows_per_step)
        sizes = ((len(self._order(epoch)), min(epochs - epoch, 1)) for epoch in range(math.ceil(epochs)))
        return math.ceil(sum(math.ceil(size * share) for size, share in sizes) / self._rows_per_step)

    def read_all(self, limit: int | None = None) -> list[T]:
        """As `Loader.read_all`; the rows are counted."""
        num_rows = self.num_rows if limit is None else min(limit, self.num_rows)
        rows = (self._read(number) for number in range(num_rows))
        with closing(encode_rows(rows, self._formatter, self._encoder, num_workers=self._num_workers)) as results:
            return read_items(results, self._errors, self.counts)

    def first(self, count: int) -> list[T]:
        rows = (self._read(number) for number in range(self.num_rows))
        results = encode_rows(rows, self._formatter, self._encoder, num_workers=0, chunk_rows=max(1, count))
        with closing(results):
            return read_items(results, self._errors, RowCounts(), limit=count)

    def state_dict(self) -> dict[str, Any]:
        return {**self._identity, **self._steps.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        check_identity(state, self._identity)
        self._steps.load_state_dict(state)

    def close(self) -> None:
        self._steps.close()

    def _draw(self, position: RowPosition) -> Generator[Unit[T, RowPosition], None, None]:
        # Rows are read ahead of their results; where each one lies waits here.
        places: deque[Place[RowPosition]] = deque()

        def rows() -> Iterator[Row | Record | DataError]:
            for place, number in self._places(position):
                places.append(place)
                yield self._read(number)

        results = encode_rows(rows(), self._formatter, self._encoder, num_workers=self._num_workers)
        with closing(results):
            yield from single_units(((places.popleft(), result) for result in results), self._errors)

    def _places(self, position: RowPosition) -> Iterator[tuple[Place[RowPosition], int]]:
        """Every row from `position` on, without end: where it lies in the run, and its number."""
        for epoch in count_from(position.epoch):
            order = self._order(epoch)
            before = position if epoch == position.epoch else RowPosition(epoch)
            for taken in range(before.num_taken + 1, len(order) + 1):
                after = RowPosition(epoch, num_taken=taken)
                yield Place(before, after), int(order[taken - 1])
                before = after

    def _read(self, number: int) -> Row | Record | DataError:
        try:
            return self._dataset[number]
        except DataError as error:
            return error


def _row_order(dataset: Dataset, seed: int, shuffle: bool) -> Order:
    """The rows of an epoch: as the data set decides, or every one once."""
    if not isinstance(dataset, Ordered):
        return every_item(len(dataset), seed, shuffle)
    order = dataset.order
    return lambda epoch: order(epoch, seed, shuffle, None)
