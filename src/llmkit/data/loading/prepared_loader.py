"""Steps of items that were tokenized before the first one."""

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from llmkit.config.schema import BatchConfig
from llmkit.data.counts import RowCounts
from llmkit.data.loading.drawing import Order, RowOrder
from llmkit.data.loading.intake import nothing_left
from llmkit.data.loading.sampler import StepSampler
from llmkit.data.packing import ranges

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Items(Protocol[T_co]):
    """Rows that were tokenized before, as `llmkit.data.preparing.prepared` gives them.

    Attributes:
        lengths: [N] int64 tokens of each item.
        row_starts: [R + 1] int64; row r became the items `row_starts[r]` up to and without `row_starts[r + 1]`.
        counts: what became of the rows.
    """

    @property
    def lengths(self) -> np.ndarray: ...
    @property
    def row_starts(self) -> np.ndarray: ...
    @property
    def counts(self) -> RowCounts: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> T_co: ...


class PreparedLoader(Generic[T]):
    """A `Loader` of prepared items; `load_prepared` makes one and says what the arguments are."""

    def __init__(
        self,
        items: Items[T],
        batch: BatchConfig,
        *,
        seed: int,
        shuffle: bool,
        order: RowOrder | None,
        rank: int,
        world_size: int,
    ) -> None:
        """
        Raises:
            DataError: there is no item.
        """
        if not len(items) and items.counts.rows:
            raise nothing_left(items.counts)
        item_order = None if order is None else _item_order(items, order, seed, shuffle)
        self._items = items
        self._sampler = StepSampler(items.lengths, batch, seed=seed, shuffle=shuffle, order=item_order)
        self._share = slice(rank, None, world_size)

    @property
    def num_rows(self) -> int:
        return len(self._items.row_starts) - 1

    @property
    def epoch(self) -> float:
        return self._sampler.epoch

    @property
    def counts(self) -> RowCounts:
        return self._items.counts

    def next_step(self) -> list[T]:
        return self._read(self._sampler.next_step()[self._share])

    def num_steps(self, num_epochs: float) -> int:
        return self._sampler.num_steps(num_epochs)

    def read_all(self, limit: int | None = None) -> list[T]:
        num_rows = self.num_rows if limit is None else min(limit, self.num_rows)
        return self.first(int(self._items.row_starts[num_rows]))

    def first(self, count: int) -> list[T]:
        return self._read(np.arange(min(count, len(self._items))))

    def state_dict(self) -> dict[str, Any]:
        return self._sampler.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._sampler.load_state_dict(state)

    def close(self) -> None:
        """Nothing is open but the items themselves, which others may use too."""

    def _read(self, numbers: np.ndarray) -> list[T]:
        return [self._items[number] for number in numbers.tolist()]


def _item_order(items: Items[Any], order: RowOrder, seed: int, shuffle: bool) -> Order:
    """The items of an epoch, where `order` says its rows; the items of a row that was divided stay together."""
    starts, sizes = items.row_starts[:-1], np.diff(items.row_starts)
    totals = np.concatenate([[0], np.cumsum(items.lengths)])
    row_lengths = np.diff(totals[items.row_starts])

    def drawn(epoch: int) -> np.ndarray:
        rows = order(epoch, seed, shuffle, row_lengths)
        return ranges(starts[rows], sizes[rows])

    return drawn
