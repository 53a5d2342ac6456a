"""Steps whose loss jumps: told of while the run goes on, and kept in `spikes.jsonl` with their rows.

{"step": 120, "loss": 9.1, "median": 1.2, "rows": ["train.jsonl:17", "train.jsonl:903"]}
"""

import math
import statistics
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmkit.disk import write_text, writing
from llmkit.formatting import format_number, listed
from llmkit.terminal import warn
from llmkit.trackers.metrics_file import encode_line, read_metrics
from llmkit.types import Source

MIN_STEPS = 8
"""Losses that are needed before a median means anything."""
MAX_WARNINGS = 5
"""Spikes that are told of; later ones are in the file alone."""


class SpikeWatch:
    """Compares each step's loss with the median of those before it."""

    def __init__(self, path: Path | None, factor: float | None, window: int) -> None:
        """
        Args:
            path: the file of spikes; made with the first one. None looks for none.
            factor: a loss above this many times the median is a spike; None finds none.
            window: steps over which the median is taken.
        """
        self.path = path
        self._factor = factor if path is not None else None
        self._losses: deque[float] = deque(maxlen=window)
        self._num_spikes = 0

    def see(self, step: int, loss: float, sources: Sequence[Source]) -> None:
        """Take in a step's loss; a spike is written down and told of.

        Raises:
            TrainingError: the disk is full.
        """
        if self._factor is None or not math.isfinite(loss):
            return
        median = statistics.median(self._losses) if len(self._losses) >= MIN_STEPS else math.inf
        self._losses.append(loss)
        if loss > self._factor * median > 0:
            self._report(step, loss, median, sources)

    def state_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"losses": list(self._losses), "num_spikes": self._num_spikes}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Go on after `step` from what `state_dict` gave; spikes of later steps, which come again, leave the file."""
        self._losses.extend(state["losses"])
        self._num_spikes = state["num_spikes"]
        self.forget_after(step)

    def forget_after(self, step: int) -> None:
        """Take spikes of later steps out of the file."""
        if self.path is not None and self.path.exists():
            kept = [spike for spike in read_metrics(self.path) if spike["step"] <= step]
            write_text(self.path, "".join(encode_line(spike).decode() for spike in kept))

    def _report(self, step: int, loss: float, median: float, sources: Sequence[Source]) -> None:
        assert self.path is not None
        rows = list(dict.fromkeys(map(str, sources)))
        with writing(self.path), self.path.open("ab") as file:
            file.write(encode_line({"step": step, "loss": loss, "median": median, "rows": rows}))
        self._num_spikes += 1
        if self._num_spikes <= MAX_WARNINGS:
            rest = f". Further spikes go to {self.path} alone" if self._num_spikes == MAX_WARNINGS else ""
            warn(
                f"step {step}: the loss is {format_number(loss)}, {loss / median:.1f} times the median of the steps "
                f"before it; rows {listed(rows)}{rest}"
            )
