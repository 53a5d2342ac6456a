"""The histogram of lengths as PNG."""

from collections.abc import Sequence
from pathlib import Path

from llmkit.data.inspecting.histogram import Bin
from llmkit.errors import ConfigError, TrainingError
from llmkit.figures import make_figure, save_figure

COLOR = "#2459c4"


def write_histogram(path: Path, bins: Sequence[Bin]) -> None:
    """Save it.

    Raises:
        ConfigError: there is nothing to draw, or the file cannot be written.
    """
    if not bins:
        raise ConfigError(f"--plot {path}: no row is trained on, so there are no lengths to draw")
    figure = make_figure()
    axes = figure.add_subplot()
    axes.bar([bin.label for bin in bins], [bin.count for bin in bins], color=COLOR, width=0.9)
    axes.set_title("Tokens per sequence", loc="left", fontweight="bold")
    axes.set_ylabel("sequences")
    axes.tick_params(axis="x", labelrotation=45)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    try:
        save_figure(figure, path)
    except TrainingError as error:
        raise ConfigError(f"--plot {path}: {error}") from None
