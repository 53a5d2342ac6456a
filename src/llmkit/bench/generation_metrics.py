"""From the times of tokens to the figures that are told of them."""

import statistics
from collections.abc import Sequence
from typing import Any

from llmkit.bench.results import Findings
from llmkit.bench.table import compare_lines, format_time
from llmkit.bench.timing import rates
from llmkit.formatting import format_bytes, format_number
from llmkit.terminal import stderr_console

Answers = Sequence[dict[str, Any]]
PERCENTILES = (50, 90, 99)


def throughput_metrics(answers: Answers, concurrency: int, memory_gbps: float) -> dict[str, Any]:
    """Tokens per second of some runs, also of the time that processors spent on them, which other processes do not
    lengthen; and what share of the memory's speed reading the weights for them takes.

    Args:
        concurrency: completions that share one pass over the weights.
        memory_gbps: what the machine can move, 1e9 bytes per second.
    """
    found = rates([one["seconds"] for one in answers], tokens=answers[0]["num_tokens"])
    steps_per_second = found["tokens_per_second"] / concurrency
    weights = answers[0].get("weight_bytes")
    return {
        **found,
        "tokens_per_cpu_second": statistics.median(one["num_tokens"] / one["cpu_seconds"] for one in answers),
        "weight_bandwidth_share": weights * steps_per_second / (memory_gbps * 1e9) if weights else None,
        "ready_seconds": answers[0].get("ready_seconds"),
        "held_memory_bytes": answers[-1].get("held_memory_bytes"),
    }


def latency_metrics(answers: Answers, concurrency: int, memory_gbps: float) -> dict[str, Any]:
    """Percentiles of the time to the first token and of the times between tokens, over all runs."""
    return {
        **percentiles("time_to_first_token_seconds", [time for one in answers for time in one["first_seconds"]]),
        **percentiles("inter_token_latency_seconds", [gap for one in answers for gap in one["gaps"]]),
        "held_memory_bytes": answers[-1].get("held_memory_bytes"),
    }


def repeat_metrics(answers: Answers) -> dict[str, Any]:
    """The first token of a long prompt, and of the same one again."""
    first = statistics.median(one["first_seconds"] for one in answers)
    again = statistics.median(one["again_seconds"] for one in answers)
    return {
        "time_to_first_token_seconds_p50": first,
        "repeated_time_to_first_token_seconds_p50": again,
        "repeated_share": again / first,
    }


def percentiles(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """`{name}_p50` and so on, by linear interpolation; None without values."""
    if not values:
        return {f"{name}_p{share}": None for share in PERCENTILES}
    ordered = sorted(values)
    found: dict[str, float | None] = {}
    for share in PERCENTILES:
        place = (len(ordered) - 1) * share / 100
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        found[f"{name}_p{share}"] = ordered[low] + (ordered[high] - ordered[low]) * (place - low)
    return found


def show(kind: str, model: str, found: Findings) -> None:
    """Print the figures of one model."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    columns = THROUGHPUT if kind == "throughput" else LATENCY
    for heading in ("", "at once", *columns):
        table.add_column(heading, justify="left" if not heading else "right")
    for one in found.results:
        cells = [(one.metrics.get(metric), show_as) for metric, show_as in columns.values()]
        table.add_row(
            one.name.partition("/")[2],
            str(one.settings.get("concurrency", "")),
            *("" if value is None else show_as(value) for value, show_as in cells),
        )
    console = stderr_console()
    console.print(f"{kind} of {model}", markup=False)
    console.print(table)
    for line in compare_lines(found.ratios):
        console.print(f"  {line}", soft_wrap=True, markup=False)
    for one in found.results:
        if (share := one.metrics.get("repeated_share")) is not None:
            console.print(f"  the same prompt again: {share:.0%} of the first one's time to the first token")


THROUGHPUT = {
    "tokens/s": ("tokens_per_second", format_number),
    "per CPU second": ("tokens_per_cpu_second", format_number),
    "±": ("spread", "{:.0%}".format),
    "memory speed used": ("weight_bandwidth_share", "{:.0%}".format),
    "ready": ("ready_seconds", format_time),
    "memory": ("held_memory_bytes", format_bytes),
}
LATENCY = {
    **{f"first, p{share}": (f"time_to_first_token_seconds_p{share}", format_time) for share in PERCENTILES},
    **{f"between, p{share}": (f"inter_token_latency_seconds_p{share}", format_time) for share in PERCENTILES},
}
