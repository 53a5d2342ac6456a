"""What the steps of a run look like: rows from all over the data, drawn as the run will draw them."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from llmkit.config.runs import DPORun, GRPORun, SFTRun
from llmkit.errors import ConfigError

T = TypeVar("T")
SAMPLED_ROWS = 256
"""Rows that lengths are known of."""
TRIED_STEPS = 200
"""Steps that are drawn to see how their sizes vary."""


class StepShapes(Generic[T]):
    """Draws steps of a run from a few of its rows, again and again; stands in for the run's own loader.

    Attributes:
        items: what steps are made of.
        lengths: tokens of each, completions not yet sampled among them at their longest.
        total_steps: optimizer steps of the run, as far as the rows tell.
    """

    def __init__(
        self, run: SFTRun | DPORun | GRPORun, items: Sequence[T], length: Callable[[T], int], num_rows: int | None
    ) -> None:
        """
        Args:
            items: at least one.
            length: tokens of an item.
            num_rows: of the data; None for a stream that does not say.

        Raises:
            ConfigError: a stream has no `max_steps`.
        """
        self.items = list(items)
        self.lengths = [length(item) for item in items]
        self._run = run
        self._random = random.Random(run.seed)
        self.mean_tokens = sum(map(sum, self._tried())) / TRIED_STEPS
        self.total_steps = run.max_steps or self._count_steps(num_rows)

    def next_step(self) -> list[T]:
        """The items of a step."""
        return [self.items[number] for number in self._draw()]

    def largest_step(self) -> int:
        """Most tokens of a step that a run of this length should expect."""
        return max(map(sum, self._tried()))

    def num_steps(self, num_epochs: float) -> int:
        """As the run's own loader has it."""
        return self.total_steps

    def state_dict(self) -> dict[str, Any]:
        """Steps are all alike, so there is no place to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to go back to."""

    def close(self) -> None:
        """Nothing to let go of."""

    def _tried(self) -> list[list[int]]:
        return [[self.lengths[number] for number in self._draw()] for _ in range(TRIED_STEPS)]

    def _draw(self) -> list[int]:
        """Numbers of the items of a step."""
        limit = self._token_limit()
        if limit is None:
            return self._random.choices(range(len(self.items)), k=self._items_per_step())
        numbers = [self._random.randrange(len(self.items))]
        room = limit - self.lengths[numbers[0]]
        while (room := room - self.lengths[number := self._random.randrange(len(self.items))]) >= 0:
            numbers.append(number)
        return numbers

    def _items_per_step(self) -> int:
        batch = self._run.batch
        return getattr(batch, "rows_per_step", None) or batch.prompts_per_step  # type: ignore[union-attr]

    def _token_limit(self) -> int | None:
        """Tokens of a step whose number of rows is not fixed."""
        if isinstance(self._run, GRPORun):
            return None
        batch = self._run.batch
        if batch.packing == "best_fit":
            sides = 2 if isinstance(self._run, DPORun) else 1
            return batch.rows_per_step * (batch.pack_length or sides * self._run.data.max_length)
        return batch.tokens_per_step

    def _count_steps(self, num_rows: int | None) -> int:
        if num_rows is None:
            raise ConfigError("max_steps is not set, and a stream does not say how many rows it has; set --max-steps N")
        if self._token_limit() is None:
            return max(1, math.ceil(self._run.num_epochs * num_rows / self._items_per_step()))
        tokens = self._run.num_epochs * num_rows * sum(self.lengths) / len(self.lengths)
        return max(1, math.ceil(tokens / self.mean_tokens))
