"""What a benchmark found as one HTML file that needs no other: picture, machine and every figure."""

import base64
import tempfile
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from llmkit.disk import write_text
from llmkit.formatting import format_number

Draw = Callable[[dict[str, Any], Path], None]
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1f2937}"
    "img{max-width:100%}.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:.2rem .7rem;text-align:right;border-bottom:1px solid #e5e7eb;white-space:nowrap}"
    "th:first-child,td:first-child{text-align:left}"
    "@media(prefers-color-scheme:dark){body{background:#111827;color:#e5e7eb}th,td{border-color:#374151}"
    "img{background:#fff}}"
)


def write_page(document: dict[str, Any], path: Path, draw: Draw) -> None:
    """Write the page.

    Args:
        document: of a benchmark.
        path: of the HTML file.
        draw: saves the picture as PNG.

    Raises:
        TrainingError: a file cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="llmkit-bench-") as directory:
        picture = Path(directory) / "figures.png"
        draw(document, picture)
        encoded = base64.b64encode(picture.read_bytes()).decode()
    title = escape(f"llmkit {document['command']}")
    body = [
        f"<h1>{title}</h1>",
        _facts(document["machine"]),
        f'<img alt="The figures of the table" src="data:image/png;base64,{encoded}">',
        _table(document["results"]),
        *(f"<p>{escape(peer)}: {escape(_pairs(values))} (ours over theirs)</p>" for peer, values in _ratios(document)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    write_text(path, f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}")


def _facts(machine: Mapping[str, Any]) -> str:
    return f"<p>{escape(_pairs(machine))}</p>"


def _ratios(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(document.get("ratios", {}).items())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_cell(value)}" for name, value in values.items())


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    """One row for each result: settings, then figures; lists are left to the JSON document."""
    rows = [{"name": row["name"], **row["settings"], **row} for row in results]
    columns = [
        column
        for column in dict.fromkeys(key for row in rows for key in row)
        if any(isinstance(row.get(column), str | int | float) for row in rows)
    ]
    head = "".join(f"<th>{escape(column.replace('_', ' '))}</th>" for column in columns)
    lines = ("".join(f"<td>{escape(_cell(row.get(column)))}</td>" for column in columns) for row in rows)
    return f"<div class=wide><table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _cell(value: Any) -> str:
    if value is None or isinstance(value, list | dict):
        return ""
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, float) and abs(value) < 1:
        return f"{value:.3g}"
    return format_number(value)
