"""`report.html`: curves, samples, configuration and environment of a run in one file that needs nothing else."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from llmkit.disk import write_text, writing
from llmkit.formatting import format_bytes, format_number, format_seconds
from llmkit.html import document, text
from llmkit.runs.run_directory import RunDirectory, spoken
from llmkit.trackers.metrics_file import read_metrics
from llmkit.train.plots import write_plots
from llmkit.train.report.charts import charts
from llmkit.train.report.samples import section as samples_section
from llmkit.train.report.svg import figure
from llmkit.train.summary import Metrics, Summary, label, number, summarize

TABLE_STEPS = 25


def write_report(directory: RunDirectory, status: str = "finished", detail: str = "") -> None:
    """Write `report.html` and the PNG plots from what the run directory holds.

    Args:
        directory: of the run.
        status: `finished`, `interrupted` or `failed`.
        detail: why it did not finish.

    Raises:
        TrainingError: the disk is full or the directory cannot be read or written.
    """
    rows = read_metrics(directory.metrics)
    with writing(directory.report):
        page = render(directory, rows, status, detail)
    write_text(directory.report, page)
    write_plots(directory.path, rows)


def render(directory: RunDirectory, rows: Sequence[Metrics], status: str, detail: str) -> str:
    """The page as text."""
    summary = summarize(rows)
    environment = read_environment(directory)
    title = f"llmkit {spoken(directory.command)} · {directory.path.resolve().name}"
    body = "".join((
        header(title, status, detail, environment),
        tiles(summary),
        time_section(summary),
        curves_section(rows),
        samples_section(directory.rollouts),
        details_section(directory, rows, environment),
    ))  # fmt: skip
    return document(title, body, style=resource("style.css"), script=resource("pointer.js"))


def resource(name: str) -> str:
    """A file of this package."""
    return files("llmkit.train.report").joinpath(name).read_text(encoding="utf-8")


def read_environment(directory: RunDirectory) -> Mapping[str, Any]:
    """`environment.json`; empty when the run ended before it was written."""
    try:
        return json.loads(directory.environment.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}


def header(title: str, status: str, detail: str, environment: Mapping[str, Any]) -> str:
    """Name of the run, how it ended, when and where."""
    machine = environment.get("machine", {})
    facts = [str(environment.get("started_at", "")).replace("T", " ").replace("+00:00", " UTC")]
    if machine:
        facts.append(f"{machine.get('processor')}, {machine.get('num_cores')} cores")
    reason = f'<p class="muted">{text(detail)}</p>' if detail else ""
    return (
        f'<header><h1>{text(title)}</h1><div class="head"><span class="badge {status}">{status}</span>'
        f'<span class="muted">{text(" · ".join(fact for fact in facts if fact))}</span></div>{reason}</header>'
    )


def tiles(summary: Summary) -> str:
    """The few figures to read first."""
    cards = []
    for name, after in summary.after.items():
        before = summary.before.get(name)
        start = "" if before is None else f"<small>{format_number(before)} → </small>"
        cards.append((label(name), f"{start}{format_number(after)}"))
    cards.append(("steps", format_number(summary.num_steps)))
    cards.append(("time", format_seconds(summary.seconds)))
    if summary.tokens_per_second is not None:
        cards.append(("tokens per second", format_number(round(summary.tokens_per_second))))
    if summary.peak_memory_bytes is not None:
        cards.append(("peak memory", format_bytes(summary.peak_memory_bytes)))
    shown = "".join(
        f'<div class="card tile"><div class="name">{escape(name)}</div><div class="value">{value}</div></div>'
        for name, value in cards
    )
    return f'<section aria-label="Key figures"><h2>Key figures</h2><div class="grid tiles">{shown}</div></section>'


def time_section(summary: Summary) -> str:
    """Where the time went, as a bar and a table."""
    if not summary.seconds_by_part:
        return ""
    total = sum(summary.seconds_by_part.values()) or 1.0
    parts = [(part, seconds, min(index, 5)) for index, (part, seconds) in enumerate(summary.seconds_by_part.items())]
    bar = "".join(f'<span class="tone-{tone}" style="flex:{seconds / total:.4f}"></span>' for _, seconds, tone in parts)
    lines = "".join(
        f'<tr><td><span class="swatch tone-{tone}"></span>{escape(part)}</td>'
        f'<td class="figure">{format_seconds(seconds)}</td><td class="figure">{seconds / total:.0%}</td></tr>'
        for part, seconds, tone in parts
    )
    return (
        '<section><h2>Where the time went</h2><div class="card">'
        f'<div class="bar" aria-hidden="true">{bar}</div><table>{lines}</table></div></section>'
    )


def curves_section(rows: Sequence[Metrics]) -> str:
    """A chart for every metric."""
    figures = "".join(figure(chart) for chart in charts(rows))
    if not figures:
        return '<section><h2>Curves</h2><p class="muted">No step was logged.</p></section>'
    return f'<section><h2>Curves</h2><div class="grid charts">{figures}</div></section>'


def details_section(directory: RunDirectory, rows: Sequence[Metrics], environment: Mapping[str, Any]) -> str:
    """What is opened on demand: the figures as a table, configuration, environment."""
    config = directory.config.read_text(encoding="utf-8") if directory.config.exists() else ""
    blocks = [("Figures as a table", figures_table(rows)), ("Configuration", f"<pre>{text(config)}</pre>")]
    blocks.append(("Environment", f"<pre>{text(json.dumps(environment, indent=2, ensure_ascii=False))}</pre>"))
    shown = "".join(f'<details class="card"><summary>{name}</summary>{content}</details>' for name, content in blocks)
    return f"<section><h2>Details</h2>{shown}</section>"


def figures_table(rows: Sequence[Metrics]) -> str:
    """At most `TABLE_STEPS` steps, evenly chosen, the first and the last among them."""
    if not rows:
        return '<p class="muted">No step was logged.</p>'
    last = len(rows) - 1
    chosen = sorted({round(index * last / (TABLE_STEPS - 1)) for index in range(TABLE_STEPS)})
    names = list(dict.fromkeys(name for row in rows for name in row if number(row, name) is not None))
    head = "".join(f'<th scope="col" class="figure">{escape(name)}</th>' for name in names)
    lines = "".join(f"<tr>{''.join(cell(rows[index], name) for name in names)}</tr>" for index in chosen)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def cell(row: Metrics, name: str) -> str:
    """One figure, empty where it was not measured."""
    value = number(row, name)
    return f'<td class="figure">{"" if value is None else format_number(value)}</td>'
