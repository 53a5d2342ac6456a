"""Packing a million lengths into bins: llmkit against TRL, and against best fit decreasing in plain Python."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from llmkit.bench.results import Findings, Ratios, Result, ratios
from llmkit.bench.setup import TRL, Setup
from llmkit.bench.timing import alternate, summary
from llmkit.bench.worker import Worker
from llmkit.errors import BenchError

CAPACITY = 2048
MEDIAN_LENGTH = 200
SIGMA = 1.0
"""Deviation of the logarithm of lengths: a third of them are less than half, or more than twice, the median."""
PYTHON_SHARE = 10
"""Plain Python gets one length in this many."""
TRL_BATCH = 1000
"""Rows that TRL packs together unless it is told otherwise."""
TRL_WHOLE = "trl, one batch"
METRICS = ("seconds", "num_bins")


def measure(num_lengths: int, setup: Setup) -> Findings:
    """Time everyone in turn.

    Raises:
        BenchError: a contender failed, or llmkit needs another number of bins than plain best fit decreasing.
    """
    files = _write_lengths(num_lengths, setup.directory)
    with ExitStack() as stack:
        own = stack.enter_context(setup.ours("llmkit", "packing", {**files, "capacity": CAPACITY}))
        contenders = {"llmkit": (own, "ours"), "llmkit small": (own, "ours_small"), "python": (own, "python")}
        for name, batch_rows in ((TRL, TRL_BATCH), (TRL_WHOLE, -1)) if setup.trl_python else ():
            settings = {"lengths": files["lengths"], "capacity": CAPACITY, "batch_rows": batch_rows}
            worker = setup.peer(name, "trl_packing", settings, setup.trl_python)
            contenders[name] = (stack.enter_context(worker), "run")
        bins: dict[str, int] = {}
        runs = {name: partial(_run, name, *contender, bins) for name, contender in contenders.items()}
        seconds = alternate(runs, setup.repeats)
    if bins["llmkit small"] != bins["python"]:
        raise BenchError(
            f"llmkit packed into {bins['llmkit small']} bins and plain best fit decreasing into {bins['python']}; "
            "times do not compare"
        )
    found = {name: {**summary(runs), "num_bins": bins[name]} for name, runs in seconds.items()}
    return Findings([_result(name, metrics, num_lengths, setup) for name, metrics in found.items()], _ratios(found))


def _ratios(found: dict[str, dict[str, float]]) -> Ratios:
    against = {
        name: "llmkit small" if name == "python" else "llmkit" for name in found if not name.startswith("llmkit")
    }
    return {
        name: {f"packing_{metric}": value for metric, value in ratios(found[ours], found[name], METRICS).items()}
        for name, ours in against.items()
    }


def _result(name: str, metrics: dict[str, float], num_lengths: int, setup: Setup) -> Result:
    small = name in ("llmkit small", "python")
    settings: dict[str, Any] = {
        "lengths": num_lengths // PYTHON_SHARE if small else num_lengths,
        "capacity": CAPACITY,
        "distribution": f"log-normal, median {MEDIAN_LENGTH}, sigma {SIGMA}",
        "repeats": setup.repeats,
    }
    if name.startswith(TRL):
        settings |= {"rows_per_batch": TRL_BATCH if name == TRL else "all", "note": "also moves tokens of one byte"}
    return Result(f"packing/{name}", settings, metrics)


def _write_lengths(num_lengths: int, directory: Path) -> dict[str, str]:
    """Files with seeded lengths, the second with the first few of them."""
    import numpy as np

    drawn = np.random.default_rng(0).lognormal(np.log(MEDIAN_LENGTH), SIGMA, num_lengths)
    lengths = np.clip(drawn.astype(np.int64), 1, CAPACITY)
    files = {"lengths": directory / "lengths.npy", "small": directory / "lengths-small.npy"}
    np.save(files["lengths"], lengths)
    np.save(files["small"], lengths[: num_lengths // PYTHON_SHARE])
    return {name: str(path) for name, path in files.items()}


def _run(name: str, worker: Worker, task: str, bins: dict[str, int]) -> float:
    """Seconds of one run; its number of bins goes to `bins`."""
    answer = worker.ask(task)
    bins[name] = answer["num_bins"]
    return answer["seconds"]
