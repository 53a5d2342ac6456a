"""`reward.png` or `loss.png`: the one curve to look at first."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.figures import make_figure, save_figure
from llmkit.train.report.charts import SMOOTH_FROM, Chart, charts, smooth
from llmkit.train.summary import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = {False: "#2459c4", True: "#c2410c"}
"""Training figures, held-out figures."""


def write_plots(directory: Path, rows: Sequence[Metrics]) -> Path | None:
    """Draw the reward, or the loss where there is no reward, over the steps.

    Returns: the file, or None when neither was measured.
    Raises: TrainingError if the disk is full.
    """
    by_title = {chart.title: chart for chart in charts(rows)}
    for title, name in (("Reward", "reward.png"), ("Loss", "loss.png")):
        if title in by_title:
            path = directory / name
            draw(by_title[title], path)
            return path
    return None


def draw(chart: Chart, path: Path) -> None:
    """Save one chart as PNG, in one go."""
    figure = make_figure()
    axes = figure.add_subplot()
    for series in chart.series:
        steps, values = zip(*series.points, strict=True)
        color = COLORS[series.held_out]
        if len(values) >= SMOOTH_FROM and not series.held_out:
            axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.3)
            values = [value for _, value in smooth(series.points)]
        marker = "o" if series.held_out or len(values) == 1 else None
        axes.plot(steps, values, color=color, linewidth=2, marker=marker, markersize=5, label=series.label)
    dress(axes, chart.title)
    save_figure(figure, path)


def dress(axes: "Axes", title: str) -> None:
    """Title, labels, grid and legend."""
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel("step")
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
