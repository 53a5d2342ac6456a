"""From nothing to the first batch of a set whose tokens are in the cache."""

import statistics
import time
from pathlib import Path
from typing import Any

from llmkit.bench.material import Material, repeat_rows
from llmkit.bench.results import Findings, Result
from llmkit.bench.setup import Setup
from llmkit.bench.timing import summary

STAGES = ("imports_seconds", "open_seconds", "first_batch_seconds")
MAX_LENGTH = 1 << 16
ROWS_PER_STEP = 16


def measure(material: Material, num_rows: int, setup: Setup) -> Findings:
    """Start fresh processes, of which the first fills the cache and does not count.

    Raises:
        BenchError: a process failed.
    """
    file = setup.directory / "start.jsonl"
    repeat_rows(material, file, num_rows=num_rows)
    first = _start(file, material, setup)
    runs = [_start(file, material, setup) for _ in range(setup.repeats)]
    metrics = {
        **summary([run["seconds"] for run in runs]),
        **{stage: statistics.median(run[stage] for run in runs) for stage in STAGES},
        "first_start_seconds": first["seconds"],
    }
    settings = {
        "rows": num_rows,
        "distinct_rows": material.num_rows,
        "file_bytes": file.stat().st_size,
        "rows_per_step": ROWS_PER_STEP,
        "repeats": setup.repeats,
    }
    file.unlink()
    return Findings([Result("start/cached", settings, metrics)])


def _start(file: Path, material: Material, setup: Setup) -> dict[str, Any]:
    """Seconds of one start, as a whole and by stage."""
    started = time.time()  # the only clock that two processes share
    settings = {
        "rows": str(file),
        "tokenizer": str(material.tokenizer),
        "max_length": MAX_LENGTH,
        "rows_per_step": ROWS_PER_STEP,
    }
    with setup.ours("first batch", "starting", settings) as worker:
        marks = worker.ask("marks")
    stages = zip(STAGES, (started, marks["imported"], marks["opened"]), tuple(marks.values()), strict=True)
    return {**{stage: end - start for stage, start, end in stages}, "seconds": marks["batched"] - started}
