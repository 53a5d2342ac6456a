"""One JSON object per step in the run directory's `metrics.jsonl`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.config.section import Section

if TYPE_CHECKING:
    from llmkit.trackers.contract import Tracker


class Config(Section):
    """Every run writes this file; there is nothing to set."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker:
    """Append to `metrics.jsonl`."""
    from llmkit.trackers.metrics_file import MetricsFile

    return MetricsFile(run_dir / "metrics.jsonl")
