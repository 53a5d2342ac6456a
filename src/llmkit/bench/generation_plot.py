"""The figures of `llmkit bench throughput` and `latency` as one picture."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.disk import writing

METRICS = {
    "throughput": ("tokens_per_second", "tokens per second"),
    "latency": ("time_to_first_token_seconds_p50", "seconds to the first token (median)"),
}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Save one panel for each model: a line for each contender over the number of requests at once.

    Raises:
        TrainingError: the file cannot be written.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metric, label = METRICS[document["command"].removeprefix("bench ")]
    rows = [row for row in document["results"] if "concurrency" in row["settings"]]
    models = list(dict.fromkeys(row["settings"]["model"] for row in rows))
    figure = Figure(figsize=(4.2 * len(models), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        for name in dict.fromkeys(row["name"] for row in rows):
            points = [
                (row["settings"]["concurrency"], row[metric])
                for row in rows
                if row["name"] == name and row["settings"]["model"] == model
            ]
            axes.plot(*zip(*points, strict=True), marker="o", label=name.partition("/")[2])
        axes.set(title=Path(model).name, xlabel="requests at once", ylabel=label, xscale="log", yscale="log")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    partial = path.with_name(f".{path.name}.partial")
    with writing(path):
        try:
            figure.savefig(partial, format="png", dpi=150)
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
