"""The figures of `llmkit bench throughput` and `latency` as one picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.figures import make_figure, save_figure

METRICS = {
    "throughput": ("tokens_per_second", "tokens per second"),
    "latency": ("time_to_first_token_seconds_p50", "seconds to the first token (median)"),
}


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Save one panel for each model: a line for each contender over the number of requests at once.

    Raises:
        TrainingError: the file cannot be written.
    """
    metric, label = METRICS[document["command"].removeprefix("bench ")]
    rows = [row for row in document["results"] if "concurrency" in row["settings"]]
    models = list(dict.fromkeys(row["settings"]["model"] for row in rows))
    figure = make_figure(4.6 * len(models), 3.4)
    for axes, model in zip(figure.subplots(1, len(models), squeeze=False)[0], models, strict=True):
        for name in dict.fromkeys(row["name"] for row in rows):
            points = [
                (row["settings"]["concurrency"], row[metric])
                for row in rows
                if row["name"] == name and row["settings"]["model"] == model
            ]
            axes.plot(*zip(*points, strict=True), marker="o", label=name.partition("/")[2])
        axes.set(title=Path(model).name, xlabel="requests at once", ylabel=label, xscale="log")
        axes.set_ylim(0, 1.1 * max(row[metric] for row in rows if row["settings"]["model"] == model))
        counts = sorted({row["settings"]["concurrency"] for row in rows})
        axes.set_xticks(counts, [str(count) for count in counts], minor=False)
        axes.set_xticks([], minor=True)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    save_figure(figure, path)
