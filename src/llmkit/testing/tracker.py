"""What every tracker promises: it takes a run's metrics, quietly, and can go on after an interruption."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmkit.testing.front import FrontContract
from llmkit.trackers.contract import Tracker

STEPS: tuple[Mapping[str, float | int | str], ...] = (
    {"step": 1, "time_seconds": 0.5, "loss": 2.25, "num_tokens": 640},
    {"step": 2, "time_seconds": 1.0, "loss": 1.75, "num_tokens": 512, "eval_loss": 1.5},
    {"step": 3, "time_seconds": 1.5, "loss": float("nan"), "num_tokens": 512, "note": "a word"},
)


class TrackerContract(FrontContract):
    """Subclass it and set `name`."""

    kind = "trackers"
    resolved: ClassVar[Mapping[str, Any]] = {"seed": 0, "max_steps": 3, "optim": {"learning_rate": 1e-5}}

    def build(self, run_dir: Path, *, resumed: bool = False) -> Tracker:
        """The tracker to test."""
        return self.plugin().build(self.config(), run_dir, self.resolved, resumed)

    def test_it_takes_metrics_and_leaves_standard_output_alone(
        self, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        tracker = self.build(tmp_path)
        for metrics in STEPS:
            tracker.log(metrics)
        tracker.close()
        assert capfd.readouterr().out == "", "standard output belongs to --json; write to standard error"

    def test_logging_leaves_the_metrics_as_they_are(self, tmp_path: Path) -> None:
        tracker = self.build(tmp_path)
        metrics = dict(STEPS[0])
        tracker.log(metrics)
        tracker.close()
        assert metrics == STEPS[0]

    def test_a_run_without_steps_can_be_closed(self, tmp_path: Path) -> None:
        self.build(tmp_path).close()

    def test_it_goes_on_after_an_interruption(self, tmp_path: Path) -> None:
        first = self.build(tmp_path)
        first.log(STEPS[0])
        first.log(STEPS[1])
        first.close()
        second = self.build(tmp_path, resumed=True)
        second.log(STEPS[1])
        second.log(STEPS[2])
        second.close()
