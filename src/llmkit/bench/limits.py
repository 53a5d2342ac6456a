"""The limits of the machine for one kind of work, and what a server uses of them."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.bench.serving_figures import Run
from llmkit.bench.worker import Worker, ours

DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def limits_of(dtype: str, cores: Sequence[int], directory: Path) -> dict[str, float]:
    """What the cores reach in a type, or in float32 where that is faster, as nothing keeps work from it.

    Returns: `gemm_gflops` of a product of matrices, and `memory_gbps` that a copy reads and writes.
    Raises:
        BenchError: it could not be measured.
    """
    settings = {"dtypes": sorted({dtype, "float32"})}
    with Worker("limits", ours("limits"), settings, cores, directory) as worker:
        return worker.ask("measure")


@dataclass(frozen=True)
class Weights:
    """The weights of a model that is served.

    Attributes:
        num_parameters: numbers in its files.
        num_bytes: of them.
        dtype: that most of them have.
    """

    num_parameters: int
    num_bytes: int
    dtype: str


def read_weights(model: str | None) -> Weights | None:
    """What the headers of a model directory's safetensors files say; None of what is no such directory."""
    files = sorted(Path(model).expanduser().glob("*.safetensors")) if model else []
    counts: Counter[str] = Counter()
    num_bytes = 0
    for path in files:
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        header.pop("__metadata__", None)
        for entry in header.values():
            counts[entry["dtype"]] += math.prod(entry["shape"])
            num_bytes += entry["data_offsets"][1] - entry["data_offsets"][0]
    if not counts:
        return None
    return Weights(sum(counts.values()), num_bytes, DTYPES.get(counts.most_common(1)[0][0], "float32"))


def shares(runs: Sequence[Run], *, weights: Weights | None, limits: Mapping[str, Any]) -> dict[str, float]:
    """What of the machine a server's answers need at least; nothing where the weights are not known.

    Every token of prompt and answer takes 2 floating-point operations for each parameter; those that a cache of prompts
    spared count too. A step of decoding reads the weights once, for as many requests as run on average: by Little's law
    their seconds in all over the seconds of the run.

    Args:
        limits: from `limits_of`.
    """
    if weights is None:
        return {}
    seconds = sum(run.seconds for run in runs)
    good = [(ask, one) for run in runs for ask, one in zip(run.asks, run.sent, strict=True) if one.error is None]
    drawn = sum(one.num_tokens for _, one in good)
    running = sum(one.seconds for _, one in good) / seconds
    flops = 2 * weights.num_parameters * (drawn + sum(len(ask.prompt) for ask, _ in good))
    return {
        "requests_running": running,
        "model_flops_share": flops / seconds / 1e9 / limits["gemm_gflops"],
        "weight_bandwidth_share": weights.num_bytes * drawn / max(1.0, running) / seconds / 1e9 / limits["memory_gbps"],
    }
