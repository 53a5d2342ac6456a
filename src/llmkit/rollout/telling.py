"""What a run tells when it ends: a table, and a picture of its rewards."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from llmkit.figures import make_figure, save_figure
from llmkit.formatting import format_number, format_seconds
from llmkit.rollout.summary import Summary
from llmkit.terminal import stderr_console

BINS = 30
COLOR = "#2459c4"


def print_summary(summary: Mapping[str, Any]) -> None:
    """The figures as a table on standard error."""
    from rich.table import Table

    table = Table(title="The rollouts", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for row in rows(summary):
        table.add_row(*row)
    stderr_console().print(table)


def rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Label and value of every figure that there is."""
    yield "prompts", format_number(summary["num_prompts"])
    yield "rollouts", format_number(summary["num_rollouts"])
    for name, label in (("num_failed", "failed"), ("num_prompts_dropped", "prompts too long")):
        if summary.get(name):
            yield label, format_number(summary[name])
    if "reward_mean" in summary:
        yield "reward", with_deviation(summary["reward_mean"], summary["reward_std"])
    for name, values in summary.get("rewards", {}).items():
        yield f"reward {name}", with_deviation(values["mean"], values["std"])
    for name in ("pass", "maj"):
        for k, value in summary.get(f"{name}_at_k", {}).items():
            yield f"{name}@{k}", f"{value:.1%}"
    if "completion_length_mean" in summary:
        mean, most = summary["completion_length_mean"], summary["completion_length_max"]
        yield "tokens of a completion", f"{format_number(mean)}, at most {format_number(most)}"
        yield "cut at the limit", f"{summary['truncated_fraction']:.1%}"
    if summary.get("seconds"):
        yield "time", format_seconds(summary["seconds"])
        yield "tokens per second", format_number(round(summary["tokens_per_second"]))
    for what, selected in summary.get("selected", {}).items():
        yield what, f"{format_number(selected['num_rows'])} in {selected['path']}"
    if "output" in summary:
        yield "written to", summary["output"]


def with_deviation(mean: float, deviation: float) -> str:
    """`0.41 ± 0.49`."""
    return f"{format_number(mean)} ± {format_number(deviation)}"


def write_plot(path: Path, summary: Summary) -> None:
    """Draw how rewards are spread over the prompts, and, where there are verdicts, what more attempts bring.

    Nothing is drawn of rollouts without rewards.

    Raises:
        TrainingError: the disk is full.
    """
    values = summary.reward
    if values is None:
        return
    curve = values.pass_at_k() if values.is_verdict else {}
    num_panels = 2 if len(curve) > 1 else 1
    figure = make_figure(4.4 * num_panels, 3.4)
    panels = figure.subplots(1, num_panels, squeeze=False)[0]
    panels[0].hist(values.group_means(), bins=BINS, color=COLOR)
    panels[0].set(title="Mean reward of a prompt", xlabel="reward", ylabel="prompts")
    if num_panels == 2:
        panels[1].plot([int(k) for k in curve], list(curve.values()), color=COLOR, marker="o")
        panels[1].set(title="pass@k", xlabel="k", ylim=(0, 1.02))
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
