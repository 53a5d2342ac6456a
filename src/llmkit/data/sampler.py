"""Which row comes next: without end, epoch after epoch, resumable to the row."""

from typing import Any

import numpy as np

from llmkit.errors import CheckpointError, DataError


class RowSampler:
    """Draws row numbers. The order of epoch e depends on `(seed, e)` alone, on every machine and version."""

    def __init__(self, num_rows: int, seed: int, shuffle: bool = True) -> None:
        """Start at the first row of epoch 0.

        Args:
            num_rows: rows of the data set.
            seed: fixes the order of every epoch, from 0.
            shuffle: a new random order each epoch; off keeps the order of the rows.
        Raises:
            DataError: there are no rows.
        """
        if num_rows < 1:
            raise DataError("The data set has no rows")
        self.num_rows = num_rows
        self.num_taken = 0
        self._seed = seed
        self._shuffle = shuffle
        self._order = self._order_of(0)

    @property
    def epoch(self) -> int:
        """The epoch that the next row belongs to, from 0."""
        return self.num_taken // self.num_rows

    def take(self, count: int) -> list[int]:
        """The next `count` row numbers, across epochs where needed."""
        return [self._next() for _ in range(count)]

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        return {"num_rows": self.num_rows, "seed": self._seed, "shuffle": self._shuffle, "num_taken": self.num_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last row that was taken.

        Raises:
            CheckpointError: the state belongs to another number of rows, seed or order.
        """
        own = self.state_dict()
        for key in ("num_rows", "seed", "shuffle"):
            if state[key] != own[key]:
                raise CheckpointError(
                    f"The checkpoint's data position was saved with {key}={state[key]}, this run has {own[key]}; "
                    "use the same data and settings, or start a new run"
                )
        self.num_taken = state["num_taken"]
        self._order = self._order_of(self.epoch)

    def _next(self) -> int:
        row = self._order[self.num_taken % self.num_rows]
        self.num_taken += 1
        if self.num_taken % self.num_rows == 0:
            self._order = self._order_of(self.epoch)
        return int(row)

    def _order_of(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(self.num_rows)
        # NumPy promises that raw bits stay the same from version to version, but not what `permutation` makes of them.
        keys = np.random.PCG64([self._seed, epoch]).random_raw(self.num_rows)
        return np.argsort(keys, kind="stable")
