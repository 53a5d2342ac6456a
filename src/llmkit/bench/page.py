"""What a benchmark found as one HTML file that needs no other: picture, machine and every figure."""

import base64
import tempfile
from collections.abc import Callable, Container, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from llmkit.bench.table import format_time
from llmkit.disk import write_text
from llmkit.formatting import format_bytes, format_number

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
    parts = dict.fromkeys(row["name"].partition("/")[0] for row in document["results"])
    body = [
        f"<h1>{title}</h1>",
        _facts(document["machine"]),
        f'<img alt="The figures of the tables" src="data:image/png;base64,{encoded}">',
        *(_part(part, [row for row in document["results"] if row["name"].startswith(f"{part}/")]) for part in parts),
        *(f"<p>{escape(peer)}: {escape(_times(values))} (ours over theirs)</p>" for peer, values in _ratios(document)),
    ]
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{title}</title>'
    write_text(path, f"<!doctype html><html lang=en><head>{head}<style>{STYLE}</style></head><body>{''.join(body)}")


def _facts(machine: Mapping[str, Any]) -> str:
    return f"<p>{escape(_pairs(machine))}</p>"


def _ratios(document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return list(document.get("ratios", {}).items())


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{_words(name)} {_cell(name, value)}" for name, value in values.items())


def _times(ratios: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {format_number(ratio)}x" for name, ratio in ratios.items())


def _part(part: str, results: Sequence[Mapping[str, Any]]) -> str:
    """A part's settings, and its figures below one another, with a column for each result."""
    if "metric" in results[0]["settings"]:
        return _comparison(results)
    shared = {
        name: value
        for name, value in results[0]["settings"].items()
        if value is not None and all(row["settings"].get(name) == value for row in results)
    }
    rows = [{**_without(row["settings"], shared), **_without(row, {"name", "settings"})} for row in results]
    names = [
        name
        for name in dict.fromkeys(key for row in rows for key in row)
        if any(isinstance(row.get(name), str | int | float) for row in rows)
    ]
    head = "".join(f"<th>{escape(row['name'].partition('/')[2])}</th>" for row in results)
    lines = (
        f"<tr><td>{escape(_words(name))}</td>"
        + "".join(f"<td>{escape(_cell(name, row.get(name)))}</td>" for row in rows)
        + "</tr>"
        for name in names
    )
    return (
        f"<h2>{escape(part)}</h2><p>{escape(_pairs(shared))}</p>"
        f"<div class=wide><table><tr><th></th>{head}</tr>{''.join(lines)}</table></div>"
    )


def _comparison(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each figure that two runs have in common."""
    head = "".join(f"<th>{title}</th>" for title in ("", "figure", "first", "second", "second / first", ""))
    lines = []
    for row in results:
        metric = row["settings"]["metric"]
        spread = f" ± {row['spread']:.2f}" if row["spread"] else ""
        cells = [row["name"].partition("/")[2], _words(metric)]
        cells += [_cell(metric, row["first"]), _cell(metric, row["second"]), f"{row['ratio']:.2f}{spread}"]
        lines.append("".join(f"<td>{escape(cell)}</td>" for cell in [*cells, row["verdict"]]))
    return f"<div class=wide><table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table></div>"


def _without(values: Mapping[str, Any], names: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _words(name: str) -> str:
    """A figure's name for people; units that the figure itself shows are left out."""
    words = {"gemm_gflops": "product of matrices, GFLOP/s", "memory_gbps": "memory, GB/s", "num_bytes": "bytes"}
    return words.get(name) or name.removesuffix("_seconds").removesuffix("_bytes").replace("_", " ")


def _cell(name: str, value: Any) -> str:
    """A figure with its unit, which its name tells; lists are left to the JSON document."""
    if value is None or isinstance(value, list | dict):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if name.endswith(("bytes", "bytes_per_second")):
        return format_bytes(value) + ("/s" if name.endswith("second") else "")
    if name.split("_")[-1] in ("share", "spread", "load"):
        return f"{value:.1%}"
    if (name.endswith("seconds") or "seconds_" in name) and "per_" not in name:
        return format_time(value)
    return f"{value:.3g}" if isinstance(value, float) and abs(value) < 1 else format_number(value)
