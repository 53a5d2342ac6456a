"""What tracker plugins promise: a place to which a run's metrics go."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Tracker(Protocol):
    """Receives metrics. `build(config, run_dir, resolved, resumed) -> Tracker` makes one.

    `build` is given the plugin's `Config`, the run directory (a Path), the resolved configuration as a plain dict with
    secrets masked (its `max_steps` is the number of steps that the run will take, None when that is not known), and
    whether the run goes on from a checkpoint.

    A tracker may fail: the run warns once and goes on without its entries. One that raises an `LLMKitError` ends the
    run.
    """

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Take one step's metrics: `step`, `time_seconds` and what was measured. Numbers may be NaN or infinite.

        Steps rise from call to call, but a resumed run repeats those that came after its checkpoint.
        """
        ...

    def close(self) -> None:
        """Flush and end. Called once, also when the run failed."""
        ...


class TrackerBuilder(Protocol):
    """The `build` of a tracker plugin."""

    def __call__(self, config: Any, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker: ...
