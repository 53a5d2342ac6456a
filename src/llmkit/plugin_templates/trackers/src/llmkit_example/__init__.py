"""A CSV file of the run's metrics, for spreadsheets."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.config.section import Section


class Config(Section):
    """Where the table is written."""

    file: str = "metrics.csv"
    """Its name in the run directory."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> "CSVTracker":
    """Open the table; a resumed run goes on in it."""
    return CSVTracker(run_dir / config.file, resumed)


class CSVTracker:
    """One line for each metric of each step: `step,metric,value`. A resumed run repeats the steps that it repeats."""

    def __init__(self, path: Path, resumed: bool) -> None:
        goes_on = resumed and path.exists()
        self._file = path.open("a" if goes_on else "w", encoding="utf-8")
        if not goes_on:
            self._file.write("step,metric,value\n")

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Write one step."""
        for name, value in metrics.items():
            if name != "step" and not isinstance(value, str):
                self._file.write(f"{metrics['step']},{name},{value}\n")
        self._file.flush()

    def close(self) -> None:
        """End the table."""
        self._file.close()
