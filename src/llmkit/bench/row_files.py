"""JSON Lines to Parquet: `llmkit convert dataset` beside `datasets`, each as a command of its own."""

import shutil
import statistics
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from llmkit.bench.material import Material, repeat_rows
from llmkit.bench.peers import datasets_parquet
from llmkit.bench.processes import Usage, run_measured
from llmkit.bench.results import Findings, Result, ratios
from llmkit.bench.setup import Setup
from llmkit.bench.timing import rates, turns
from llmkit.errors import BenchError

OURS, PEER = "llmkit convert dataset", "datasets"
BATCH_ROWS = 10_000
ALLOWED_BYTES = 64 << 20
"""By which four times the rows may take more memory and still count as flat: blocks are full, and heaps have gaps."""


def measure(material: Material, num_rows: int, setup: Setup) -> Findings:
    """Convert a file, and a quarter of it to see whether memory grows.

    Raises:
        BenchError: a contender failed, or the tables differ.
    """
    source, quarter = setup.directory / "convert.jsonl", setup.directory / "quarter.jsonl"
    repeat_rows(material, quarter, num_rows=max(1, num_rows // 4))
    repeat_rows(material, source, num_rows=num_rows)
    contenders = {OURS: _ours, PEER: _theirs}
    small = {name: convert(quarter, setup) for name, convert in contenders.items()}
    runs: dict[str, list[Usage]] = {name: [] for name in contenders}
    for name in turns(list(contenders), setup.repeats):
        runs[name].append(contenders[name](source, setup))
    _check(_target(setup, OURS), _target(setup, PEER))
    settings = {
        "rows": num_rows,
        "distinct_rows": min(num_rows, material.num_rows),
        "file_bytes": source.stat().st_size,
        "threads": len(setup.cores),
        "repeats": setup.repeats,
    }
    metrics = {name: _metrics(num_rows, found, small[name]) for name, found in runs.items()}
    for path in (source, quarter, *(_target(setup, name) for name in contenders)):
        path.unlink()
    compared = ratios(metrics[OURS], metrics[PEER], ["rows_per_second", "rows_per_cpu_second", "peak_memory_bytes"])
    return Findings(
        [Result(f"convert/{name}", settings, one) for name, one in metrics.items()],
        {PEER: {f"convert_{metric}": value for metric, value in compared.items()}},
    )


def _metrics(num_rows: int, runs: list[Usage], small: Usage) -> dict[str, Any]:
    peak = statistics.median(run.peak_memory_bytes for run in runs)
    return {
        **rates([run.seconds for run in runs], rows=num_rows),
        "rows_per_cpu_second": num_rows / statistics.median(run.cpu_seconds for run in runs),
        "peak_memory_bytes": peak,
        "quarter_peak_memory_bytes": small.peak_memory_bytes,
        "flat": peak <= small.peak_memory_bytes + ALLOWED_BYTES,
    }


def _ours(source: Path, setup: Setup) -> Usage:
    target = str(_target(setup, OURS))
    line = ["-m", "llmkit", "convert", "dataset", str(source), "--output", target, "--overwrite"]
    return run_measured(OURS, line, setup)


def _theirs(source: Path, setup: Setup) -> Usage:
    cache = setup.directory / "cache"  # or the next run would find this one's rows
    line = [str(datasets_parquet.__file__), str(source), str(_target(setup, PEER)), str(cache)]
    try:
        return run_measured(PEER, line, setup)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


def _target(setup: Setup, name: str) -> Path:
    return setup.directory / f"{name.replace(' ', '-')}.parquet"


def _check(ours: Path, theirs: Path) -> None:
    """Refuse to compare files that do not hold the same rows."""
    for number, (one, other) in enumerate(zip_longest(_tables(ours), _tables(theirs))):
        if one is None or other is None or not one.equals(other.cast(one.schema)):
            raise BenchError(f"rows {number * BATCH_ROWS + 1} and on: {OURS} and {PEER} wrote different ones")


def _tables(path: Path) -> Iterator[Any]:
    """A file's rows, so many at a time, however it is divided."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        rest = file.schema_arrow.empty_table()
        for batch in file.iter_batches(BATCH_ROWS):
            rest = pa.concat_tables([rest, pa.Table.from_batches([batch])])
            while rest.num_rows >= BATCH_ROWS:
                yield rest.slice(0, BATCH_ROWS)
                rest = rest.slice(BATCH_ROWS)
        yield rest
