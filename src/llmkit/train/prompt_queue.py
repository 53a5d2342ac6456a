"""Prompts in any number at a time, from a loader that hands out whole steps; resumable to the prompt."""

from typing import Any

from llmkit.data.counts import RowCounts
from llmkit.data.loading.loader import Loader
from llmkit.types import Record


class PromptQueue:
    """What is left of the loader's last step waits here for the next call.

    Its state is that of the loader before the step, with the number of prompts taken from it: resumed, the loader hands
    the same step out again.
    """

    def __init__(self, loader: Loader[Record]) -> None:
        self._loader = loader
        self._waiting: list[Record] = []
        self._before: dict[str, Any] = loader.state_dict()
        self._num_taken = 0

    @property
    def counts(self) -> RowCounts:
        """What became of the rows so far."""
        return self._loader.counts

    def take(self, count: int) -> list[Record]:
        """The next `count` prompts.

        Raises:
            DataError: a row cannot be used, or nothing is left to train on.
        """
        taken: list[Record] = []
        while len(taken) < count:
            if not self._waiting:
                self._before, self._num_taken = self._loader.state_dict(), 0
                self._waiting = self._loader.next_step()
            part = self._waiting[: count - len(taken)]
            self._waiting = self._waiting[len(part) :]
            self._num_taken += len(part)
            taken += part
        return taken

    def num_steps(self, num_epochs: float) -> int:
        """Steps of the loader in so many epochs; prompts that are drawn in the place of others are not in it."""
        return self._loader.num_steps(num_epochs)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON can hold it."""
        if not self._waiting:
            return {"loader": self._loader.state_dict(), "num_taken": 0}
        return {"loader": self._before, "num_taken": self._num_taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the last prompt of the run that the state is of.

        Raises:
            CheckpointError: the state belongs to other data or another order.
        """
        self._loader.load_state_dict(state["loader"])
        self._waiting = []
        self.take(state["num_taken"])

    def close(self) -> None:
        """End the loader's processes."""
        self._loader.close()
