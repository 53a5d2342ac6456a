"""A process that does one contender's work, on cores and threads that the benchmark chooses."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llmkit.errors import BenchError

LOG_LINES = 5
PLUGINS = "plugins"
"""Folder in the benchmark's directory that its workers find Python packages in."""
# Where llmkit is not installed, its folder `peers` is imported as a package of its own; what lies beside it is not.
RUN_PEER = "import sys; sys.path.insert(0, {folder!r}); from peers import {script}; del sys.path[0]; {script}.main()"


class Worker:
    """Starts with its settings, prepares, and then does what it is asked, one thing at a time.

    Attributes:
        name: of the contender.
    """

    def __init__(
        self, name: str, program: Sequence[str], settings: Mapping[str, Any], cores: Sequence[int], directory: Path
    ) -> None:
        """Start it and wait until it is prepared.

        Args:
            name: of the contender, for errors.
            program: the command line, without the settings; `ours()` and `peer()` make it.
            settings: what the program's `prepare` is given, besides `cores` and `directory`.
            cores: numbers of the cores to run on; it takes as many threads.
            directory: where it may write; also holds the caches that it uses.
        Raises:
            BenchError: it could not be started or prepared; says why.
        """
        self.name = name
        self._log = directory / f"{name.replace('/', '-').replace(' ', '-')}.log"
        request = json.dumps({**settings, "cores": list(cores), "directory": str(directory)})
        with self._log.open("w", encoding="utf-8") as log:
            try:
                self._process = subprocess.Popen(
                    [*program, request],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=_environment(len(cores), directory),
                )
            except OSError as error:
                raise BenchError(f"{name}: {program[0]} cannot be started: {error.strerror or error}") from None
        try:
            self._read()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(self, task: str, **options: Any) -> dict[str, Any]:
        """Have it do a task, with what the task takes.

        Raises:
            BenchError: the task failed; says why.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": task, **options}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:  # it has ended, and its log says why
            raise self._ended() from None
        return self._read()

    def close(self) -> None:
        """End the process; safe to call twice."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(f"{self.name}: {answer['error']}")
        return answer

    def _ended(self) -> BenchError:
        """The error for a process that is gone, with the last lines that it wrote."""
        said = self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]
        return BenchError("\n  ".join([f"{self.name}: it ended with exit code {self._process.wait()}", *said]))


def ours(module: str) -> list[str]:
    """Command line of a worker of llmkit's own, a module in `llmkit.bench.workers`."""
    return [sys.executable, "-m", f"llmkit.bench.workers.{module}"]


def peer(script: str, python: Path | None = None) -> list[str]:
    """Command line of another library's worker, a module in `llmkit/bench/peers`; `python` None is our own."""
    return [str(python or sys.executable), "-c", RUN_PEER.format(folder=str(Path(__file__).parent), script=script)]


def _environment(threads: int, directory: Path) -> dict[str, str]:
    """One number of threads for every library that has threads, and caches that nobody else uses."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
        "HF_HUB_OFFLINE": "1",  # what is needed was fetched before
        "HF_DATASETS_CACHE": str(directory / "datasets"),
        "LLMKIT_CACHE": str(directory / "llmkit"),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(directory / PLUGINS), os.environ.get("PYTHONPATH")])),
        "TMPDIR": str(directory),  # a worker is killed at its end and takes nothing away itself
        "PYTHONWARNINGS": "ignore",
        "PYTHONSAFEPATH": "1",  # files of the working directory are no modules
    }
