"""What `llmkit bench serve` found, as a table and as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.bench.contenders import OURS as CONTENDER
from llmkit.bench.plot import OURS, THEIRS
from llmkit.bench.results import Findings
from llmkit.bench.table import compare_lines, format_time
from llmkit.figures import make_figure, save_figure
from llmkit.formatting import format_number
from llmkit.terminal import stderr_console

WAITS = {"first token": "time_to_first_token_seconds", "between tokens": "inter_token_latency_seconds"}
FRONT = "front_cpu_seconds_per_1000_tokens"
SHARES = {"of GEMM": "model_flops_share", "of memory": "weight_bandwidth_share"}
SHADES = {"p50": "#2459c4", "p90": "#93b4f5", "p99": THEIRS}


def show(found: Findings) -> None:
    """Print the results, and what failed."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    has_goals = any("goodput_share" in one.metrics for one in found.results)
    has_front = any(FRONT in one.metrics for one in found.results)
    shares = {heading: name for heading, name in SHARES.items() if any(name in one.metrics for one in found.results)}
    headings = ["", "tokens/s", "requests/s", *(["within goals"] if has_goals else [])]
    headings += ["front CPU per 1,000 tokens"] if has_front else []
    headings += list(shares)
    headings += [f"{wait} p50 / p99" for wait in WAITS]
    for heading in [*headings, "failed"]:
        table.add_column(heading, justify="right" if heading else "left")
    measured = [one for one in found.results if one.name.startswith("serve/")]
    for one in measured:
        table.add_row(
            one.name.partition("/")[2],
            format_number(round(one.metrics["tokens_per_second"], 1)),
            format_number(round(one.metrics["requests_per_second"], 2)),
            *([f"{one.metrics['goodput_share']:.0%}"] if has_goals else []),
            *([_time(one.metrics.get(FRONT))] if has_front else []),
            *(f"{one.metrics[name]:.0%}" for name in shares.values()),
            *(
                " / ".join(_time(one.metrics[f"{metric}_{part}"]) for part in ("p50", "p99"))
                for metric in WAITS.values()
            ),
            str(one.metrics["num_failed"]),
        )
    console = stderr_console()
    console.print(table)
    for one in measured:
        for error in one.metrics["errors"]:
            console.print(f"{one.name.partition('/')[2]}: {error}", markup=False)
    for one in found.results:
        if one not in measured:
            console.print(f"{one.settings['contender']}: {_highest(one.metrics)}", markup=False)
    for line in compare_lines(found.ratios):
        console.print(f"  {line}", soft_wrap=True, markup=False)


def _highest(metrics: Mapping[str, Any]) -> str:
    rate = metrics["saturation_requests_per_second"]
    return "keeps up with no rate of the sweep" if rate is None else f"keeps up with {rate:g} requests a second"


def _time(seconds: float | None) -> str:
    return "-" if seconds is None else format_time(seconds)


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Save throughput and waits as PNG.

    Raises:
        TrainingError: the file cannot be written.
    """
    rows = [row for row in document["results"] if row["name"].startswith("serve/")]
    names = [_label(row) for row in rows]
    figure = make_figure(height=max(6, 1.2 + 0.9 * len(rows)))
    top, *others = figure.subplots(1 + len(WAITS), squeeze=False)[:, 0]
    colors = [OURS if row["settings"]["contender"] == CONTENDER else THEIRS for row in rows]
    top.barh(names, [row["tokens_per_second"] for row in rows], color=colors)
    top.set_xlabel("output tokens per second")
    for axes, (wait, metric) in zip(others, WAITS.items(), strict=True):
        for place, (percent, color) in enumerate(SHADES.items()):
            heights = [index + 0.27 * (place - 1) for index in range(len(rows))]
            values = [1000 * (row[f"{metric}_{percent}"] or 0.0) for row in rows]
            axes.barh(heights, values, height=0.25, color=color, label=percent)
        axes.set_yticks(range(len(rows)), names)
        axes.set_xlabel(f"milliseconds to the {wait}" if wait == "first token" else f"milliseconds {wait}")
        axes.legend(frameon=False)
    for axes in (top, *others):
        axes.invert_yaxis()
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _label(row: Mapping[str, Any]) -> str:
    """Contender and pace; the names of llmkit's own results leave the contender out."""
    name, contender = row["name"].partition("/")[2], row["settings"]["contender"]
    return name if name.startswith(contender) else f"{contender} {name}"
