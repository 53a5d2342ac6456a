"""`llmkit bench report`: two runs of a benchmark, figure by figure."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from llmkit.bench.machine import NOISY
from llmkit.errors import ConfigError
from llmkit.figures import make_figure, save_figure
from llmkit.formatting import format_number
from llmkit.terminal import stderr_console

NOT_COMPARED = ("_min", "_max", "spread", "foreign_load", "num_failed", "num_succeeded")
PLACES = ("model", "distinct_rows", "file_bytes", "repeats", "contender")
"""Settings that may differ between runs of the same thing."""
LIMITS = ("gemm_gflops", "memory_gbps", "cores")
SAME_MACHINE = 0.15
HIGHER_IS_BETTER = ("per_second", "share", "parameters")
Row = dict[str, Any]


def compare(first: Path, second: Path) -> dict[str, Any]:
    """The document of the comparison: ratios are of the second file's figures over the first one's.

    Raises:
        ConfigError: a file is no benchmark's, they are of different commands, or have nothing in common.
    """
    one, other = read(first), read(second)
    if one["command"] != other["command"]:
        raise ConfigError(f"{first} is of llmkit {one['command']}, and {second} of llmkit {other['command']}")
    results = [row for pair in _pairs(one["results"], other["results"]) for row in _compared(*pair)]
    if not results:
        raise ConfigError(f"{first} and {second} have no result in common")
    return {
        "command": "bench report",
        "machine": {"of": one["command"], "first": str(first), "second": str(second)},
        "notes": list(_notes(one["machine"], other["machine"])) + _left_out(one["results"], other["results"]),
        "results": results,
    }


def read(path: Path) -> dict[str, Any]:
    """The document of a benchmark.

    Raises:
        ConfigError: the file holds none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    keys = ("command", "machine", "results")
    if not isinstance(document, dict) or any(key not in document for key in keys):
        raise ConfigError(f"{path}: no result of llmkit bench; write one with --output")
    return document


def show(document: Mapping[str, Any]) -> None:
    """Print the comparison."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("", "figure", "first", "second", "second / first", ""):
        table.add_column(heading, justify="left" if heading in ("", "figure") else "right")
    before = None
    for row in document["results"]:
        name, metric = row["name"].partition("/")[2], row["settings"]["metric"]
        table.add_row(
            "" if name == before else name,
            metric.replace("_", " "),
            *(format_number(row[key]) for key in ("first", "second")),
            f"{row['ratio']:.2f}{_plus_minus(row)}",
            row["verdict"],
        )
        before = name
    console = stderr_console()
    console.print(table)
    for note in document["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Save the ratios as PNG, with their spread.

    Raises:
        TrainingError: the file cannot be written.
    """
    rows: Sequence[Row] = document["results"]
    figure = make_figure(height=max(2.6, 0.8 + 0.25 * len(rows)))
    axes = figure.subplots()
    colors = {"better": "#15803d", "worse": "#c2410c", "": "#9ca3af"}
    names = [f"{row['name'].partition('/')[2]} {row['settings']['metric'].replace('_', ' ')}" for row in rows]
    axes.barh(range(len(rows)), [row["ratio"] for row in rows], xerr=[row["spread"] or 0.0 for row in rows],
              color=[colors[row["verdict"]] for row in rows])  # fmt: skip
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.axvline(1.0, color="#1f2937", linewidth=0.8)
    axes.set_xlabel("second over first")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def _pairs(one: Sequence[Row], other: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """Results of the same thing; things measured several times go by their order."""
    waiting: dict[str, list[Row]] = {}
    for row in other:
        waiting.setdefault(_key(row), []).append(row)
    for row in one:
        if several := waiting.get(_key(row)):
            yield row, several.pop(0)


def _key(row: Row) -> str:
    settings = {name: value for name, value in row["settings"].items() if name not in PLACES}
    return json.dumps([row["name"], settings], sort_keys=True)


def _compared(one: Row, other: Row) -> Iterator[Row]:
    spreads = (one.get("spread"), other.get("spread"))
    for metric, value in one.items():
        theirs = other.get(metric)
        if metric.endswith(NOT_COMPARED) or not _is_number(value) or not _is_number(theirs) or not value:
            continue
        ratio = theirs / value
        # The quotient of two figures that are each off by a few percent is off by as much as both together.
        both = None if None in spreads else ratio * sum(filter(None, spreads))
        yield {
            "name": one["name"],
            "settings": {"metric": metric, **one["settings"]},
            "first": value,
            "second": theirs,
            "ratio": ratio,
            "spread": both,
            "verdict": _verdict(metric, ratio, both),
        }


def _verdict(metric: str, ratio: float, spread: float | None) -> str:
    """Which way it went, where that is more than the runs differ by among themselves."""
    if spread is None or abs(ratio - 1) <= spread:
        return ""
    return "better" if (ratio > 1) == any(word in metric for word in HIGHER_IS_BETTER) else "worse"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plus_minus(row: Row) -> str:
    return "" if row["spread"] is None else f" ± {row['spread']:.2f}"


def _notes(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for name in LIMITS:
        if one.get(name) and other.get(name) and abs(other[name] / one[name] - 1) > SAME_MACHINE:
            yield (
                f"the machines differ: {name} {format_number(one[name])} and {format_number(other[name])}, so that the "
                "ratios are not of the programs alone"
            )
    for which, machine in (("first", one), ("second", other)):
        load = machine.get("foreign_load")
        if load is not None and load > NOISY:
            yield f"other processes used {load:.0%} of the machine in the {which} run"


def _left_out(one: Sequence[Row], other: Sequence[Row]) -> list[str]:
    names = [{_key(row): row["name"] for row in rows} for rows in (one, other)]
    return [
        f"only in the {which} file: {name}"
        for which, (own, others) in (("first", names), ("second", names[::-1]))
        for key, name in own.items()
        if key not in others
    ]
