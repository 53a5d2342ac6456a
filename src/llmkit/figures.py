"""Pictures by matplotlib, which is imported when one is drawn: without a display, and written whole or not at all."""

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.disk import writing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 150


def make_figure(width: float = 8, height: float = 4.5) -> "Figure":
    """A figure without pyplot, hence without a display or state shared with anyone else's plots.

    Args:
        width: inches, and so is `height`.
    """
    # Where its cache directory cannot be written, matplotlib takes a temporary one; nobody needs to hear of it.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, whole or not at all.

    Raises:
        TrainingError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            figure.savefig(partial, format="png", dpi=DOTS_PER_INCH)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
