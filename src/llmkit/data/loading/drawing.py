"""An epoch's order: which item comes when, and which items come together."""

from collections.abc import Callable

import numpy as np

from llmkit.config.schema import BatchConfig
from llmkit.data.packing import Bins, best_fit_decreasing, length_groups
from llmkit.errors import DataError

Order = Callable[[int], np.ndarray]
"""Item numbers of an epoch, from 0, in the order in which they are drawn."""
RowOrder = Callable[[int, int, bool, np.ndarray | None], np.ndarray]
"""`llmkit.data.contract.Ordered.order`: row numbers by epoch, seed, shuffle, and tokens of each row."""

_UNITS = 1
"""Ends the key of the order of units, which is drawn apart from the order of items."""


def random_order(count: int, *key: int) -> np.ndarray:
    """[count] the numbers below `count` in an order that depends on the key alone, on every machine and version."""
    # NumPy promises that raw bits stay the same from version to version, but not what `permutation` makes of them.
    return np.argsort(np.random.PCG64(list(key)).random_raw(count), kind="stable")


def every_item(num_items: int, seed: int, shuffle: bool) -> Order:
    """Each epoch has every item once: in a new random order, or as they are.

    Raises:
        DataError: there are no items.
    """
    if num_items < 1:
        raise DataError("The data set has no rows")
    return lambda epoch: random_order(num_items, seed, epoch) if shuffle else np.arange(num_items)


def draw_units(lengths: np.ndarray, batch: BatchConfig, *key: int, shuffle: bool) -> Bins:
    """Bring items together as `batch.packing` says; a step takes whole units, see `units_per_step`.

    Args:
        lengths: [N] tokens of each item, in the order in which items are drawn.
        batch: its `pack_length` is set.
        key: decides in which order units come; without `shuffle` they come by their first item.
    Returns: positions in `lengths`.
    """
    if batch.packing == "none":
        return Bins(np.arange(len(lengths)), np.arange(1, len(lengths) + 1))
    if batch.packing == "best_fit":
        assert batch.pack_length is not None, "whoever knows data.max_length sets it"
        units = best_fit_decreasing(lengths, batch.pack_length)
    else:
        units = length_groups(lengths, batch.rows_per_step, batch.tokens_per_step)
    by_first_item = units.items[units.starts]
    return units.reordered(random_order(len(units), *key, _UNITS) if shuffle else np.argsort(by_first_item))


def units_per_step(batch: BatchConfig) -> int | None:
    """Units of a step; None takes as many as fit into `batch.tokens_per_step`."""
    if batch.packing == "length":
        return 1  # A group of similar lengths has the size of a step.
    return batch.rows_per_step if batch.tokens_per_step is None else None
