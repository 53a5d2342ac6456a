"""A tracker that lets a run go on only as far as a benchmark asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.bench.peers.stepping import Stepper
from llmkit.config.section import Section

KEPT = ("loss", "num_tokens", "generation_seconds", "training_seconds")


class Config(Section):
    """Nothing to choose."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> StepTracker:
    """The tracker of the worker's own stepper."""
    assert running is not None, "a worker sets it before it trains"
    return StepTracker(running)


running: Stepper | None = None


class StepTracker:
    """Tells the stepper of each step."""

    def __init__(self, stepper: Stepper) -> None:
        self._stepper = stepper

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Take down a step."""
        if metrics["step"]:
            self._stepper.finish_step(**{name: float(metrics[name]) for name in KEPT if name in metrics})

    def close(self) -> None:
        """Nothing is open."""
