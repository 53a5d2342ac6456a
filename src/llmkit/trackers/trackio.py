"""Trackio: a dashboard on this machine, or in a Hugging Face Space."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.trackers.contract import Tracker

EXTRA = "trackio"


class Config(Section):
    """Where the run appears."""

    project: str = "llmkit"
    """Project that the run belongs to; `trackio show --project` opens it."""
    run_name: str | None = None
    """Name shown for the run; unset takes the run directory's."""
    space_id: str | None = None
    """Hugging Face Space to log to, `user/space`; unset keeps everything on this machine."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker:
    """Begin a run, or go on with the last one of the same name.

    Raises:
        PluginError: the package trackio is not installed, or the Space cannot be used.
    """
    from llmkit.trackers.trackio_run import TrackioTracker

    return TrackioTracker(config, run_dir, resolved, resumed)
