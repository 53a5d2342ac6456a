"""What the parts of a benchmark share: where and how to measure."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench import machine
from llmkit.bench.machine import NOISY, ForeignLoad
from llmkit.bench.results import Findings, document
from llmkit.bench.worker import Worker, ours, peer
from llmkit.errors import ConfigError
from llmkit.terminal import stderr_console

TRL = "trl"


@dataclass(frozen=True)
class Setup:
    """How to measure.

    Attributes:
        directory: for files that last as long as the benchmark.
        cores: numbers of the cores that contenders run on, one contender at a time.
        repeats: runs of each contender that count.
        trl_python: interpreter of an environment with TRL; None leaves TRL out.
        limits: what this machine can do at most: cores, GFLOP/s of a product of matrices, GB/s of memory.
        load: of other processes, since the benchmark began.
    """

    directory: Path
    cores: tuple[int, ...]
    repeats: int
    trl_python: Path | None
    limits: Mapping[str, Any]
    load: ForeignLoad

    def ours(self, name: str, module: str, settings: Mapping[str, Any]) -> Worker:
        """Start a worker of llmkit's own."""
        return Worker(name, ours(module), settings, self.cores, self.directory)

    def peer(self, name: str, script: str, settings: Mapping[str, Any], python: Path | None = None) -> Worker:
        """Start another library's worker; `python` None is our own interpreter."""
        return Worker(name, peer(script, python), settings, self.cores, self.directory)

    def document(self, command: str, findings: Findings) -> dict[str, Any]:
        """The JSON document of what was found; says on standard error how noisy the machine was."""
        share = self.load.share()
        tell_noise(share)
        return document(command, {**self.limits, "foreign_load": share}, findings)


@contextmanager
def open_setup(threads: int, repeats: int, trl_python: Path | None = None) -> Iterator[Setup]:
    """Find out what the machine can do, and make a directory that lasts as long as the benchmark.

    Raises:
        ConfigError: there are fewer cores than threads.
    """
    cores = machine.usable_cores()
    if threads > len(cores):
        raise ConfigError(f"--threads {threads}: this process may use {len(cores)} cores")
    limits = {"cores": len(cores), "gemm_gflops": machine.gemm_gflops(), "memory_gbps": machine.memory_gbps()}
    load = ForeignLoad()
    with tempfile.TemporaryDirectory(prefix="llmkit-bench-") as name:
        # The last core is the one that a system likes to use least.
        yield Setup(Path(name), tuple(cores[-threads:]), repeats, trl_python, limits, load)


def tell_noise(share: float | None) -> None:
    """Say how much of the machine others used."""
    console = stderr_console()
    if share is None:
        console.print("This system does not tell what other processes do, so nobody knows how noisy the run was.")
    elif share > NOISY:
        console.print(
            f"noisy: other processes used {share:.0%} of the machine meanwhile. Ratios hold better than times; for "
            "times, run it again when the machine is idle"
        )
    else:
        console.print(f"Other processes used {share:.0%} of the machine meanwhile.")
