"""Memory while a file that is larger than what is kept of it goes by."""

import statistics
from collections.abc import Sequence
from typing import Any

from llmkit.bench.material import Material, repeat_rows
from llmkit.bench.results import Findings, Result
from llmkit.bench.setup import Setup

MAX_LENGTH = 1 << 16
TOLERANCE = 0.05
"""Share by which memory may grow from the first quarter to the last and still count as flat."""


def measure(material: Material, megabytes: int, setup: Setup) -> Findings:
    """Stream a generated file once, and look at the memory along the way.

    Raises:
        BenchError: the worker failed.
    """
    file = setup.directory / "stream.jsonl"
    num_rows = repeat_rows(material, file, num_bytes=megabytes * 1_000_000)
    settings = {"rows": str(file), "tokenizer": str(material.tokenizer), "max_length": MAX_LENGTH}
    with setup.ours("streaming", "streaming", {**settings, "num_rows": num_rows}) as worker:
        answer = worker.ask("run")
    about = {"file_bytes": file.stat().st_size, "rows": num_rows, "shuffle_block": answer["shuffle_block"]}
    file.unlink()
    metrics = {
        "rows_per_second": answer["num_rows"] / answer["seconds"],
        "tokens_per_second": answer["num_tokens"] / answer["seconds"],
        "seconds": answer["seconds"],
        "peak_memory_bytes": answer["peak_memory_bytes"],
        **quarters(answer["memory_bytes"]),
        "memory_bytes": answer["memory_bytes"],
    }
    return Findings([Result("streaming/llmkit", about, metrics)])


def quarters(memory_bytes: Sequence[int]) -> dict[str, Any]:
    """Median memory of the first and of the last quarter of a run, and whether they are about the same.

    Args:
        memory_bytes: taken at even distances; empty where the system does not tell.
    """
    if not memory_bytes:
        return {"first_quarter_memory_bytes": None, "last_quarter_memory_bytes": None, "flat": None}
    size = max(1, len(memory_bytes) // 4)
    first, last = statistics.median(memory_bytes[:size]), statistics.median(memory_bytes[-size:])
    flat = last <= first * (1 + TOLERANCE)
    return {"first_quarter_memory_bytes": first, "last_quarter_memory_bytes": last, "flat": flat}
