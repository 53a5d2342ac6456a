"""The histogram of lengths as PNG."""

import logging
from collections.abc import Sequence
from pathlib import Path

from llmkit.data.inspecting.histogram import Bin
from llmkit.errors import ConfigError

COLOR = "#2459c4"


def write_histogram(path: Path, bins: Sequence[Bin]) -> None:
    """Save it.

    Raises:
        ConfigError: there is nothing to draw, or the file cannot be written.
    """
    if not bins:
        raise ConfigError(f"--plot {path}: no row is trained on, so there are no lengths to draw")
    # Where its cache directory cannot be written, matplotlib takes a temporary one; nobody needs to hear of it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # A figure without pyplot: no display, and no state shared with anyone else's plots.
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.bar([bin.label for bin in bins], [bin.count for bin in bins], color=COLOR, width=0.9)
    axes.set_title("Tokens per sequence", loc="left", fontweight="bold")
    axes.set_ylabel("sequences")
    axes.tick_params(axis="x", labelrotation=45)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        figure.savefig(path, format="png", dpi=150)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None
