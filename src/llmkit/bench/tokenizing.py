"""Rows to tokens with masks: llmkit against `datasets.map` and TRL, on the same rows with the same tokenizer."""

from contextlib import ExitStack
from functools import partial
from typing import Any

from llmkit.bench.material import Material
from llmkit.bench.results import Findings, Result, check_equal, ratios
from llmkit.bench.setup import TRL, Setup
from llmkit.bench.timing import alternate, rates
from llmkit.bench.worker import Worker

OURS = ("encode", "format", "prepare")
"""What llmkit is timed at: records to samples; file to samples; file to the memory-mapped set that training reads."""
ROW_BY_ROW = "datasets.map"
MAX_LENGTH = 1 << 16
"""No row of a chat is longer, so nobody cuts any."""


def measure(material: Material, setup: Setup) -> Findings:
    """Time everyone in turn, and see that they all made the same tokens and masks.

    Raises:
        BenchError: a contender failed, or its tokens or masks differ.
    """
    settings = {"rows": str(material.rows), "tokenizer": str(material.tokenizer), "max_length": MAX_LENGTH}
    with ExitStack() as stack:
        own = stack.enter_context(setup.ours("llmkit", "tokenizing", settings))
        peers = {ROW_BY_ROW: stack.enter_context(setup.peer(ROW_BY_ROW, "row_by_row", settings))}
        if setup.trl_python:
            peers[TRL] = stack.enter_context(setup.peer(TRL, "trl_sft", settings, setup.trl_python))
        contenders = {task: partial(_seconds, own, task) for task in OURS}
        contenders |= {name: partial(_seconds, worker, "run") for name, worker in peers.items()}
        seconds = alternate(contenders, setup.repeats)
        made = _check(own, peers)
    amounts = {"rows": material.num_rows, "tokens": made["num_tokens"]}
    found = {name: rates(runs, **amounts) for name, runs in seconds.items()}
    about = {
        **material.about,
        "rows": material.num_rows,
        "tokens_per_row": made["num_tokens"] / material.num_rows,
        "trained_share": made["num_trained"] / made["num_tokens"],
        "threads": len(setup.cores),
        "repeats": setup.repeats,
    }
    return Findings(
        [Result(f"tokenize/{_shown(name)}", about, metrics) for name, metrics in found.items()],
        {
            peer: {f"{task}_{metric}": value for task in OURS for metric, value in _ratio(found[task], found[peer])}
            for peer in peers
        },
    )


def _check(own: Worker, peers: dict[str, Worker]) -> dict[str, Any]:
    """What llmkit makes, which everyone else has made in its last run too."""
    made = own.ask("results")
    for name, worker in peers.items():
        check_equal("llmkit", made["digests"], name, worker.ask("results")["digests"])
    return made


def _seconds(worker: Worker, task: str) -> float:
    return worker.ask(task)["seconds"]


def _ratio(ours: dict[str, float], theirs: dict[str, float]) -> list[tuple[str, float]]:
    return list(ratios(ours, theirs, ["rows_per_second"]).items())


def _shown(name: str) -> str:
    return f"llmkit.{name}" if name in OURS else name
