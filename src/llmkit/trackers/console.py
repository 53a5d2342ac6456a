"""A progress bar on a terminal, and plain lines elsewhere, on standard error."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.trackers.contract import Tracker


class Config(Section):
    """How often plain lines come; a progress bar shows every step."""

    every_seconds: float = Field(10.0, ge=0)
    """Least time between two plain lines; 0 prints every step. Evaluations and the last step are always printed."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker:
    """A bar when standard error is a terminal, lines otherwise."""
    from llmkit.trackers.progress import open_progress

    return open_progress(resolved.get("max_steps"), config.every_seconds)
