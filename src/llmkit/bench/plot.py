"""The figures of a benchmark as one picture."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.figures import make_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, THEIRS = "#2459c4", "#9ca3af"
STAGES = {"imports": "#93b4f5", "open": "#2459c4", "first_batch": "#c2410c"}
Rows = Sequence[Mapping[str, Any]]


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Save the document's figures as PNG, one panel for each part that was measured.

    Raises:
        TrainingError: the file cannot be written.
    """
    panels = {part: rows for part in PANELS if (rows := _rows_of(document["results"], part))}
    figure = make_figure(height=sum(_height(rows) for rows in panels.values()))
    for axes, (part, rows) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels.items(), strict=True):
        title, fill = PANELS[part]
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        fill(axes, rows)
    save_figure(figure, path)


def _height(rows: Rows) -> float:
    """Inches of a panel: many bars need more."""
    return max(2.6, 0.8 + 0.25 * len(rows))


def _rows_of(results: Rows, part: str) -> list[dict[str, Any]]:
    found = [(one["name"].split("/", 1), one) for one in results]
    return [{**one, "name": name} for (owner, name), one in found if owner == part]


def _tokenize(axes: "Axes", rows: Rows) -> None:
    _bars(axes, rows, "rows_per_second")
    axes.set_xlabel("rows per second")


def _convert(axes: "Axes", rows: Rows) -> None:
    _bars(axes, rows, "rows_per_second")
    axes.set_xlabel("rows per second, of the whole command")


def _checkpoint(axes: "Axes", rows: Rows) -> None:
    _bars(axes, [{**row, "megabytes": row["peak_memory_bytes"] / 1e6} for row in rows], "megabytes")
    (size,) = {row["settings"]["bytes"] for row in rows}
    axes.axvline(size / 1e6, color=THEIRS, linestyle="--")
    axes.set_xlabel("most megabytes held; the line is the checkpoint's size")


def _packing(axes: "Axes", rows: Rows) -> None:
    _bars(axes, [{**row, "name": f"{row['name']} ({row['settings']['lengths']:,})"} for row in rows], "seconds")
    axes.set_xscale("log")
    axes.set_xlim(left=min(row["seconds"] for row in rows) / 3)
    axes.set_xlabel("seconds")


def _train(axes: "Axes", rows: Rows) -> None:
    named = [{**row, "name": f"{row['name']} {row['settings']['case']}"} for row in rows]
    _bars(axes, sorted(named, key=lambda row: row["settings"]["case"]), "tokens_per_second")
    axes.set_xlabel("tokens per second")


def _start(axes: "Axes", rows: Rows) -> None:
    (row,) = rows
    left = 0.0
    for stage, color in STAGES.items():
        seconds = row[f"{stage}_seconds"]
        axes.barh([""], [seconds], height=0.4, left=left, color=color, label=stage.replace("_", " "))
        left += seconds
    axes.set_xlabel("seconds")
    axes.legend(frameon=False, ncols=len(STAGES), loc="lower right", bbox_to_anchor=(1, 1))


def _streaming(axes: "Axes", rows: Rows) -> None:
    (row,) = rows
    held = row["memory_bytes"]
    share = row["settings"]["file_bytes"] / max(1, len(held)) / 1e6
    axes.plot([index * share for index in range(len(held))], [size / 1e6 for size in held], color=OURS)
    axes.set_ylim(0, max(held, default=0) / 1e6 * 1.2 or None)
    axes.set_xlabel("megabytes read")
    axes.set_ylabel("megabytes held")


def _seconds(axes: "Axes", rows: Rows) -> None:
    _bars(axes, rows, "seconds")
    axes.set_xlabel("seconds")


def _bars(axes: "Axes", rows: Rows, metric: str) -> None:
    colors = [OURS if row["name"].startswith("llmkit") else THEIRS for row in rows]
    axes.barh([row["name"] for row in rows], [row[metric] for row in rows], color=colors)
    axes.invert_yaxis()


PANELS: dict[str, tuple[str, Callable[["Axes", Rows], None]]] = {
    "tokenize": ("Rows to tokens with masks", _tokenize),
    "packing": ("Lengths into bins", _packing),
    "start": ("Start on cached tokens", _start),
    "startup": ("From nothing to ready", _seconds),
    "weights": ("New weights on running servers", _seconds),
    "train": ("Training steps", _train),
    "streaming": ("Memory while streaming", _streaming),
    "checkpoint": ("Memory of conversions", _checkpoint),
    "convert": ("JSON Lines to Parquet", _convert),
}
"""For each part, the title of its panel and what fills it."""
