"""TensorBoard event files in the run directory; `tensorboard --logdir runs` shows them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.trackers.contract import Tracker

EXTRA = "tensorboard"


class Config(Section):
    """How events are written."""

    flush_seconds: float = Field(30.0, gt=0)
    """Longest time that a figure waits before it is in the file."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker:
    """Write to `tensorboard/` in the run directory.

    Raises:
        PluginError: the package tensorboard is not installed.
    """
    from llmkit.trackers.tensorboard_writer import TensorBoardTracker

    return TensorBoardTracker(run_dir / "tensorboard", resolved, resumed=resumed, flush_seconds=config.flush_seconds)
