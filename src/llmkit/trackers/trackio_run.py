"""Metrics as a Trackio run."""

import contextlib
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from llmkit.errors import PluginError
from llmkit.trackers.trackio import Config


class TrackioTracker:
    """Logs every metric by its own name, at its step."""

    def __init__(self, config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> None:
        """Begin a run, or go on with the last one of the same name.

        Raises:
            PluginError: the package trackio is not installed, or the Space cannot be used.
        """
        try:
            trackio = import_module("trackio")
        except ImportError as error:
            raise PluginError("Tracker 'trackio' needs the package trackio: pip install 'llmkit[trackio]'") from error
        self._finish = trackio.finish
        with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to `--json`
            try:
                self._run = trackio.init(
                    project=config.project,
                    name=config.run_name or run_dir.resolve().name,
                    space_id=config.space_id,
                    config=dict(resolved),
                    resume="allow" if resumed else "never",
                )
            except Exception as error:  # Hub, HTTP and database errors have no common base
                raise PluginError(f"Tracker 'trackio' cannot start: {error}") from error

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Add one step."""
        values = {name: value for name, value in metrics.items() if name != "step"}
        self._run.log(values, step=int(metrics["step"]))

    def close(self) -> None:
        """Store what is left and end."""
        with contextlib.redirect_stdout(sys.stderr):
            self._finish()
