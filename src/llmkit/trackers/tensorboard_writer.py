"""Metrics as TensorBoard scalars."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.errors import PluginError

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardTracker:
    """One scalar per metric, by its own name; text for what is not a number."""

    def __init__(self, path: Path, resolved: Mapping[str, Any], *, resumed: bool, flush_seconds: float) -> None:
        """
        Args:
            path: directory of the event files.
            resolved: the configuration, shown under Text.
            resumed: hide, from the first step on that is logged now, what was logged before.
            flush_seconds: longest time that a figure stays in memory.

        Raises:
            PluginError: the package tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard.writer import SummaryWriter as Writer
        except ImportError as error:
            raise PluginError("Tracker 'tensorboard' needs the package tensorboard: "
                              "pip install 'llmkit[tensorboard]'") from error  # fmt: skip
        self._open = lambda purge_step: Writer(str(path), purge_step=purge_step, flush_secs=max(1, int(flush_seconds)))
        self._resolved = resolved
        self._resumed = resumed
        self._writer: SummaryWriter | None = None

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Add one step."""
        step = int(metrics["step"])
        if self._writer is None:
            self._writer = self._open(step if self._resumed else None)
            self._writer.add_text("config", "    " + json.dumps(self._resolved, indent=2).replace("\n", "\n    "), step)
        for name, value in metrics.items():
            if isinstance(value, str):
                self._writer.add_text(name, value, step)
            elif name != "step":
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close the file."""
        if self._writer is not None:
            self._writer.close()
