"""One small but real run of the whole benchmark, which several tests look at."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ARGUMENTS = ("--rows", "50", "--repeats", "1", "--lengths", "1000", "--stream-mb", "1")


@dataclass(frozen=True)
class Run:
    """What the command left."""

    document: dict[str, Any]
    stderr: str
    output: Path
    plot: Path


@pytest.fixture(scope="session")
def bench_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """`llmkit bench data` with all of its parts, in a process of its own."""
    directory = tmp_path_factory.mktemp("bench")
    files = ("--output", str(directory / "data.json"), "--plot", str(directory / "data.png"))
    done = subprocess.run(
        [sys.executable, "-m", "llmkit", "bench", "data", *ARGUMENTS, "--json", *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "LLMKIT_CACHE": str(directory / "cache"), "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    return Run(json.loads(done.stdout), done.stderr, directory / "data.json", directory / "data.png")
