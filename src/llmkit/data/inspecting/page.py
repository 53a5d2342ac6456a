"""Rows and figures as one HTML file that needs nothing else."""

from collections.abc import Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from llmkit.data.inspecting.figures_text import repeated, sections
from llmkit.data.inspecting.histogram_svg import drawing
from llmkit.data.inspecting.looking import Findings
from llmkit.data.inspecting.row_html import article
from llmkit.data.inspecting.tally import Figures
from llmkit.errors import ConfigError
from llmkit.formatting import format_number
from llmkit.html import document, text

NOT_AS_THEY_WERE = "Rows that are not trained on as they are"
FILTERS = """\
<div class="card filters">
<label><input type="checkbox" data-toggles="trained-only"> only what trains</label>
<label><input type="checkbox" data-toggles="edges"> token edges</label>
<label><input type="checkbox" data-toggles="problems-only"> only rows that are not kept as they are</label>
<label>rows with the text <input type="search" id="search"></label>
</div>
"""


def write_page(path: Path, findings: Findings, command: str) -> None:
    """Write the page.

    Raises:
        ConfigError: the file cannot be written.
    """
    try:
        path.write_text(render(findings, command), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror or error}") from None


def render(findings: Findings, command: str) -> str:
    """The page as text."""
    subject = findings.subject
    title = f"llmkit {command} · {subject.run.dataset.name}"
    facts = (
        subject.command.replace("/", " "),
        f"formatter {subject.formatter_name}",
        f"tokenizer of {subject.model.tokenizer or subject.model.path}",
        f"max_length {subject.run.data.max_length:,}",
    )
    verdict = "muted" if findings.keeps_turns else "badge interrupted"
    body = "".join((
        f'<header><h1>{text(title)}</h1><p class="muted">{text(" · ".join(facts))}</p>',
        f'<p><span class="{verdict}">{text(findings.template)}</span></p></header>',
        *(figures_sections(findings.figures) if findings.figures else ()),
        rows_section(findings),
    ))  # fmt: skip
    return document(title, body, style=resource("page.css"), script=resource("page.js"))


def resource(name: str) -> str:
    """A file of this package."""
    return files("llmkit.data.inspecting").joinpath(name).read_text(encoding="utf-8")


def rows_section(findings: Findings) -> str:
    """The rows with their tokens, and what filters them."""
    if not findings.views:
        return ""
    return f"<section><h2>Rows</h2>{FILTERS}{''.join(article(view) for view in findings.views)}</section>"


def figures_sections(figures: Figures) -> Iterator[str]:
    """Key figures, tables, the histogram, and the rows to look at."""
    counts = figures.counts
    cards = [
        ("rows", format_number(counts.rows)),
        ("trained on", format_number(figures.kept)),
        ("tokens", format_number(counts.tokens)),
        ("of them train", f"{figures.trained_share:.1%}"),
        ("faulty rows", format_number(counts.skipped)),
        ("duplicate rows", format_number(figures.duplicates.rows)),
    ]
    shown = "".join(
        f'<div class="card tile"><div class="name">{text(name)}</div><div class="value">{text(value)}</div></div>'
        for name, value in cards
    )
    yield f'<section><h2>Figures</h2><div class="grid tiles">{shown}</div></section>'
    tables = "".join(
        f'<div class="card"><h3>{text(title)}</h3>{table(rows)}</div>' for title, rows in sections(figures)
    )
    yield f'<section><h2>Counts</h2><div class="grid tables">{tables}</div></section>'
    if figures.histogram:
        yield f'<section><h2>Tokens per sequence</h2><div class="card">{drawing(figures.histogram)}</div></section>'
    if figures.not_as_they_were:
        rows = [
            (group.outcome, format_number(group.count), group.reason, ", ".join(group.places))
            for group in figures.not_as_they_were
        ]
        yield f'<section><h2>{NOT_AS_THEY_WERE}</h2><div class="card scroll">{table(rows)}</div></section>'
    for title, repeats in repeated(figures):
        rows = [(" = ".join(places),) for places in repeats.examples]
        count = f"{repeats.groups:,} groups, {repeats.rows:,} rows. The first:"
        yield f'<section><h2>{text(title)}</h2><div class="card scroll"><p>{count}</p>{table(rows)}</div></section>'


def table(rows: Sequence[Sequence[str]]) -> str:
    """Cells as they are; numbers to the right."""
    lines = "".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    return f"<table>{lines}</table>"


def cell(value: str) -> str:
    """One cell."""
    kind = ' class="figure"' if value[:1].isdigit() and ":" not in value and len(value) < 20 else ""
    return f"<td{kind}>{text(value)}</td>"
