"""`llmkit bench startup`: how long people wait before anything happens."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench import training_material
from llmkit.bench.contenders import Wanted, contenders, engine
from llmkit.bench.results import Findings, Result, ratios
from llmkit.bench.setup import Setup, open_setup
from llmkit.bench.table import show_part
from llmkit.bench.timing import alternate, spread, summary
from llmkit.bench.training import our_worker, trl_worker
from llmkit.bench.training_cases import CASES
from llmkit.errors import BenchError
from llmkit.terminal import stderr_console

COMMANDS = ("--version", "train --help", "train sft --help", "serve --help", "convert merge --help", "plugins list")
CASE = CASES["sft-5m"]
COMMAND_SECONDS = 120.0


@dataclass(frozen=True)
class StartupBench:
    """What to measure.

    Attributes:
        parts: `commands`, `serve` and `train`.
        engine: that `llmkit serve` runs on.
        model: that servers load; None takes one of random weights.
        peer: `vllm` or `sglang` beside `llmkit serve`, `trl` beside `llmkit train`; None compares with nothing.
        python: interpreter of the peer's environment.
        repeats: starts of each contender that count.
        threads: cores and threads of a trainer.
    """

    parts: tuple[str, ...]
    engine: str
    model: str | None
    peer: str | None
    python: Path | None
    repeats: int
    threads: int


def measure(request: StartupBench) -> dict[str, Any]:
    """Measure what is asked for and show it on standard error.

    Returns: the JSON document.
    Raises:
        BenchError, EngineError: a command, a server or a trainer did not start.
    """
    measured: dict[str, Callable[[StartupBench, Setup], Findings]] = {
        "commands": _commands, "serve": _serve, "train": _train,
    }  # fmt: skip
    found = Findings()
    with open_setup(request.threads, request.repeats, request.python if request.peer == "trl" else None) as setup:
        for part in request.parts:
            stderr_console().print(f"Measuring {part} ...")
            one = measured[part](request, setup)
            show_part("startup", one)
            found.add(one)
        return setup.document("bench startup", found)


def _commands(request: StartupBench, setup: Setup) -> Findings:
    """Processes of the command line that do nothing, beside an interpreter that does nothing."""
    lines = {f"llmkit {command}": ["-m", "llmkit", *command.split()] for command in COMMANDS}
    starts = {name: lambda line=line: _seconds_of(line) for name, line in {"python": ["-c", ""], **lines}.items()}
    seconds = alternate(starts, setup.repeats)
    return Findings([_result(name, {"part": "commands"}, several) for name, several in seconds.items()])


def _seconds_of(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    try:
        done = subprocess.run(
            [sys.executable, *arguments], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise BenchError(f"{' '.join(arguments)}: not done in {COMMAND_SECONDS:g} s") from None
    seconds = time.perf_counter() - start
    if done.returncode:
        raise BenchError(f"{' '.join(arguments)}: exit code {done.returncode}: {done.stderr.strip()[-300:]}")
    return seconds


def _serve(request: StartupBench, setup: Setup) -> Findings:
    """From nothing to a server that answers."""
    model = request.model
    if model is None:
        directory = setup.directory / "served"
        training_material.write_model(directory, CASE.shape)
        model = str(directory)
    name = f"llmkit serve ({request.engine})"

    def start(peers: tuple[str, ...]) -> float:
        arguments = ["--model", model, "--engine", request.engine]
        began = time.perf_counter()
        wanted = Wanted(None, arguments, model, None, peers, request.python, setup.directory)
        with engine(peers[0], wanted) if peers else contenders(wanted):
            return time.perf_counter() - began

    starts = {name: lambda: start(())}
    if request.peer not in (None, "trl"):
        peer = str(request.peer)
        starts[peer] = lambda: start((peer,))
    return _compared("serve", name, alternate(starts, setup.repeats), {"model": Path(model).name})


def _train(request: StartupBench, setup: Setup) -> Findings:
    """From nothing to the end of the first optimizer step."""
    training_material.write_plugins(setup.directory)
    makers = {"llmkit train sft": lambda: our_worker(CASE, setup, threads=request.threads, device="cpu")}
    if setup.trl_python is not None:
        way = "trl autocast"
        makers["trl"] = lambda: trl_worker(CASE, way, setup, device="cpu")

    def start(make: Callable[[], Any]) -> float:
        began = time.perf_counter()
        with ExitStack() as stack:
            stack.enter_context(make()).ask("steps", count=1)
            return time.perf_counter() - began

    seconds = alternate({name: lambda make=make: start(make) for name, make in makers.items()}, setup.repeats)
    return _compared("train", "llmkit train sft", seconds, {"case": CASE.name, "threads": request.threads})


def _compared(part: str, ours: str, seconds: dict[str, list[float]], settings: dict[str, Any]) -> Findings:
    results = [_result(name, {"part": part, **settings}, several) for name, several in seconds.items()]
    metrics = {one.name.partition("/")[2]: one.metrics for one in results}
    peers = {
        name: {f"{part} {metric}": ratio for metric, ratio in ratios(metrics[ours], found, ["seconds"]).items()}
        for name, found in metrics.items()
        if name != ours
    }
    return Findings(results, peers)


def _result(name: str, settings: dict[str, Any], seconds: list[float]) -> Result:
    return Result(f"startup/{name}", settings, {**summary(seconds), "spread": spread(seconds)})
