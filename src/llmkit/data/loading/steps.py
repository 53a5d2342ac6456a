"""Steps of units that are made while they are drawn; what is read ahead counts only when it is handed out."""

import math
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict
from typing import Any, Generic, TypeVar

from llmkit.config.schema import BatchConfig
from llmkit.data.counts import RowCounts
from llmkit.data.loading.drawing import units_per_step
from llmkit.data.loading.intake import P, Unit, add_counts
from llmkit.data.row_errors import RowErrors

T = TypeVar("T")


class StepDrawer(Generic[T, P]):
    """Hands out a rank's share of step after step.

    Attributes:
        position: where the run stands, after the last step.
        counts: what became of the rows so far.
    """

    def __init__(
        self,
        draw: Callable[[P], Generator[Unit[T, P], None, None]],
        start: P,
        batch: BatchConfig,
        errors: RowErrors,
        *,
        rank: int,
        world_size: int,
    ) -> None:
        """
        Args:
            draw: the units from a position on, without end.
            start: the first position.
            batch: units of a step.
            errors: the faulty rows, which belong to the state.
            rank: of this process, from 0.
            world_size: processes that share each step.
        """
        self.position = start
        self.counts = RowCounts()
        self._draw = draw
        self._per_step = units_per_step(batch)
        self._tokens_per_step = batch.tokens_per_step or math.inf
        self._errors = errors
        self._rank = rank
        self._world_size = world_size
        self._units: Generator[Unit[T, P], None, None] | None = None
        self._ahead: Unit[T, P] | None = None

    def next_step(self) -> list[T]:
        """This rank's share of the items of the next optimizer step.

        Raises:
            DataError: a row cannot be used, or a whole epoch was left out.
        """
        try:
            units = self._next_units()
        except BaseException:
            # Asked again, it goes on from where the last whole step ended.
            self.close()
            raise
        for unit in units:
            add_counts(self.counts, unit.counts)
        self.position = units[-1].after
        return [item for unit in units for item in unit.items][self._rank :: self._world_size]

    def state_dict(self) -> dict[str, Any]:
        """Position, counts and faulty rows, as JSON can hold them."""
        return {"position": asdict(self.position), "counts": asdict(self.counts), "faulty_rows": self._errors.known()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after the last step of the run that the state is of."""
        self.close()
        self.position = type(self.position)(**state["position"])
        self.counts = RowCounts(**state["counts"])
        self._errors.learn(state["faulty_rows"])

    def close(self) -> None:
        """End processes and close files; a step that is asked for afterwards opens them again."""
        if self._units is not None:
            self._units.close()
        self._units = self._ahead = None

    def _next_units(self) -> list[Unit[T, P]]:
        if self._units is None:
            self._units = self._draw(self.position)
        units: list[Unit[T, P]] = []
        num_tokens = 0
        while self._per_step is None or len(units) < self._per_step:
            unit = self._ahead or next(self._units)
            self._ahead = None
            num_tokens += unit.num_tokens
            if units and self._is_full(num_tokens):
                self._ahead = unit
                break
            units.append(unit)
        return units

    def _is_full(self, num_tokens: int) -> bool:
        return self._per_step is None and num_tokens > self._tokens_per_step
