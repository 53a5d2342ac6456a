"""What a run tells people when it ends: the closing table and sample rollouts, on standard error."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from llmkit.formatting import format_bytes, format_number, format_seconds
from llmkit.terminal import stderr_console, visible
from llmkit.train.summary import Summary, label

if TYPE_CHECKING:
    from llmkit.types import Rollout


def print_summary(summary: Summary, *, extra: Iterable[tuple[str, str]] = ()) -> None:
    """The table that ends a run: what was measured before and after, how fast it went, and where the time went.

    Args:
        summary: of the run's metrics.
        extra: rows to add at the end, such as where the report is.
    """
    from rich.table import Table

    out = stderr_console()
    if summary.before or summary.after:
        table = Table(title="Before and after", title_justify="left", title_style="bold")
        table.add_column("")
        for heading in ("before", "after"):
            table.add_column(heading, justify="right")
        for name, after in summary.after.items():
            before = summary.before.get(name)
            table.add_row(label(name), "" if before is None else format_number(before), format_number(after))
        out.print(table)
    table = Table(title="The run", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", overflow="fold")
    for row in [*summary_rows(summary), *extra]:
        table.add_row(*row)
    out.print(table)


def summary_rows(summary: Summary) -> list[tuple[str, str]]:
    """Label and value of everything that is not before and after."""
    rows = [("steps", format_number(summary.num_steps)), ("time", format_seconds(summary.seconds))]
    if summary.tokens_per_second is not None:
        rows.append(("tokens per second", format_number(round(summary.tokens_per_second))))
    if summary.num_tokens:
        rows.append(("tokens trained on", format_number(summary.num_tokens)))
    if summary.peak_memory_bytes is not None:
        rows.append(("peak memory", format_bytes(summary.peak_memory_bytes)))
    for part, seconds in summary.seconds_by_part.items():
        share = seconds / summary.seconds if summary.seconds else 0.0
        rows.append((f"time in {part}", f"{format_seconds(seconds)}  ({share:.0%})"))
    return rows


def print_samples(title: str, rollouts: Sequence["Rollout"], count: int = 3) -> None:
    """Show the first `count` rollouts: the prompt dimmed, the completion, its reward."""
    from rich.text import Text

    out = stderr_console()
    out.print(Text(title, style="bold"))
    for rollout in rollouts[:count]:
        out.print(Text(visible(rollout.prompt.strip()), style="dim"), soft_wrap=True)
        out.print(Text(visible(rollout.completion.strip())), soft_wrap=True)
        if rollout.reward is not None:
            style = "green" if rollout.reward > 0 else "red"
            out.print(Text(f"reward {format_number(rollout.reward)}", style=style))
        out.print()
