"""What the parts of a benchmark share: where and how to measure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench.worker import Worker, ours, peer

TRL = "trl"


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes:
        directory: for files that last as long as the benchmark.
        cores: numbers of the cores that contenders run on, one contender at a time.
        repeats: runs of each contender that count.
        trl_python: interpreter of an environment with TRL; None leaves TRL out.
    """

    directory: Path
    cores: tuple[int, ...]
    repeats: int
    trl_python: Path | None = None

    def ours(self, name: str, module: str, settings: Mapping[str, Any]) -> Worker:
        """Start a worker of llmkit's own."""
        return Worker(name, ours(module), settings, self.cores, self.directory)

    def peer(self, name: str, script: str, settings: Mapping[str, Any], python: Path | None = None) -> Worker:
        """Start another library's worker; `python` None is our own interpreter."""
        return Worker(name, peer(script, python), settings, self.cores, self.directory)
