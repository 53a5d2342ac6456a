"""Figures of a server in Prometheus' text format."""

from collections.abc import Mapping
from typing import Any

from llmkit.engines.inference.contract import EngineStats
from llmkit.engines.inference.remote.contract import Link


async def read_stats(link: Link, metrics: Mapping[str, str]) -> EngineStats:
    """How a server is doing, by its `/metrics`; what it does not tell is 0.

    Args:
        metrics: the server's metric for each field of `EngineStats`.
    """
    text = await link.call("/metrics", phase="reading its metrics", method="GET")
    values = metric_values(text if isinstance(text, str) else "")
    found: dict[str, Any] = {name: values.get(metric, 0.0) for name, metric in metrics.items()}
    counts = {name: int(value) for name, value in found.items() if name.startswith("num_")}
    return EngineStats(**found | counts)


def metric_values(text: str) -> dict[str, float]:
    """Each metric's value, summed over its labels."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        value = rest.rpartition("}")[2] if rest else line.partition(" ")[2]
        name = name.partition(" ")[0]
        try:
            values[name] = values.get(name, 0.0) + float(value.split()[0])
        except (ValueError, IndexError):
            continue  # not a sample in this format
    return values
