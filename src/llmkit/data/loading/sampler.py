"""Which items come next: step after step, epoch after epoch, without end, resumable to the item."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from llmkit.config.schema import BatchConfig
from llmkit.data.loading.drawing import Order, draw_units, every_item, units_per_step
from llmkit.data.packing import Bins, count_steps
from llmkit.errors import CheckpointError, DataError


def check_identity(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """A position means nothing in other data or another order.

    Raises:
        CheckpointError: names what differs between a saved state and this run's own.
    """
    for key, value in own.items():
        if state.get(key) != value:
            raise CheckpointError(
                f"The checkpoint's data position was saved with {key}={state.get(key)}, this run has {value}; "
                "use the same data and settings, or start a new run"
            )


@dataclass(frozen=True, slots=True)
class _Plan:
    """An epoch.

    Attributes:
        units: item numbers, in the order in which they are drawn.
        totals: [U] tokens up to the end of each unit.
    """

    units: Bins
    totals: np.ndarray

    def passed(self, unit: int) -> int:
        """Tokens before a unit."""
        return int(self.totals[unit - 1]) if unit else 0

    def fitting(self, first: int, room: int) -> int:
        """Where the units end that fit into `room` tokens, from unit `first` on."""
        return max(first, int(np.searchsorted(self.totals, self.passed(first) + room, side="right")))


class StepSampler:
    """Draws the items of optimizer steps. The order of epoch e depends on `(seed, e)` alone, on every machine."""

    def __init__(
        self, lengths: np.ndarray, batch: BatchConfig, *, seed: int, shuffle: bool = True, order: Order | None = None
    ) -> None:
        """Start at the first item of epoch 0.

        Args:
            lengths: [N] tokens of each item.
            batch: items of a step, and which of them come together; its `pack_length` is set.
            seed: fixes the order of every epoch, from 0.
            shuffle: a new random order each epoch; off keeps the order of the items.
            order: item numbers of an epoch, in place of every item once; epochs may differ in length.
        Raises:
            DataError: there are no items.
        """
        self._lengths = lengths
        self._batch = batch
        self._per_step = units_per_step(batch)
        self._seed = seed
        self._shuffle = shuffle
        # With an order of their own, and with groups cut by tokens, epochs may differ in their number of units.
        self._epochs_are_alike = order is None and not (batch.packing == "length" and batch.tokens_per_step)
        self._order = order or every_item(len(lengths), seed, shuffle)
        self._epoch = 0
        self._num_taken = 0
        self._planned: tuple[int, _Plan] | None = None

    @property
    def epoch(self) -> float:
        """Epochs passed, with the share of the present one."""
        return self._epoch + (self._num_taken / len(self._plan(self._epoch).units) if self._num_taken else 0.0)

    def next_step(self) -> np.ndarray:
        """Item numbers of the next optimizer step; the next epoch fills a step up where one ends."""
        parts: list[np.ndarray] = []
        num_units = num_tokens = 0
        while True:
            plan, first = self._plan(self._epoch), self._num_taken
            stop = min(self._end_of_step(plan, num_units, num_tokens), len(plan.units))
            parts.append(plan.units.between(first, stop))
            num_units += stop - first
            num_tokens += plan.passed(stop) - plan.passed(first)
            self._num_taken = stop
            if stop < len(plan.units):
                break
            self._epoch, self._num_taken = self._epoch + 1, 0
            if num_units == self._per_step:
                break
        return np.concatenate(parts)

    def num_steps(self, num_epochs: float) -> int:
        """Steps from the first until `num_epochs` epochs have passed, with the step that crosses their end."""
        epochs = Fraction(str(num_epochs))
        if self._per_step is None:
            assert self._batch.tokens_per_step is not None
            return count_steps(self._totals(epochs), self._batch.tokens_per_step)
        if self._epochs_are_alike:
            return math.ceil(epochs * len(self._plan(0).units) / self._per_step)
        return math.ceil(sum(len(totals) for totals in self._totals(epochs)) / self._per_step)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        return {**self._identity(), "epoch": self._epoch, "num_taken": self._num_taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last step that was taken.

        Raises:
            CheckpointError: the state belongs to other data, another seed or another order.
        """
        check_identity(state, self._identity())
        self._epoch, self._num_taken = state["epoch"], state["num_taken"]

    def _identity(self) -> dict[str, Any]:
        """What the order follows from."""
        own = {"num_items": len(self._lengths), "seed": self._seed, "shuffle": self._shuffle}
        own |= {"packing": self._batch.packing}
        if self._batch.packing != "none":
            own |= {"num_tokens": int(self._lengths.sum())}
        if self._batch.packing == "best_fit":
            own |= {"pack_length": self._batch.pack_length}
        if self._batch.packing == "length":
            own |= {"rows_per_step": self._batch.rows_per_step, "tokens_per_step": self._batch.tokens_per_step}
        return own

    def _end_of_step(self, plan: _Plan, num_units: int, num_tokens: int) -> int:
        """Where a step ends that has so many units and tokens of the epoch before; may be beyond the epoch."""
        if self._per_step is not None:
            return self._num_taken + self._per_step - num_units
        assert self._batch.tokens_per_step is not None
        fitting = plan.fitting(self._num_taken, self._batch.tokens_per_step - num_tokens)
        return fitting if num_units else max(fitting, self._num_taken + 1)

    def _totals(self, epochs: Fraction) -> Iterator[np.ndarray]:
        """`_Plan.totals` of each epoch, the last one cut to its share."""
        for epoch in range(math.ceil(epochs)):
            totals = self._plan(epoch).totals
            yield totals[: math.ceil(min(epochs - epoch, 1) * len(totals))]

    def _plan(self, epoch: int) -> _Plan:
        if self._planned is None or self._planned[0] != epoch:
            drawn = self._order(epoch)
            if not len(drawn):
                raise DataError(f"No row is left in epoch {epoch}: every one of them was left out")
            lengths = self._lengths[drawn]
            units = draw_units(lengths, self._batch, self._seed, epoch, shuffle=self._shuffle)
            self._planned = epoch, _Plan(Bins(drawn[units.items], units.ends), np.cumsum(units.totals(lengths)))
        return self._planned[1]
