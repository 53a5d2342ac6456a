"""The command `llmkit bench report`."""

from pathlib import Path
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, deliver

EXAMPLES = """\b
Examples:
  llmkit bench serve --model DIR --repeats 3 --output before.json
  llmkit bench report before.json after.json --plot report.html
\b
A figure counts as better or worse where it changed by more than the runs of a file differ among themselves.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(report)


def report(
    first: Annotated[Path, typer.Argument(metavar="A.json", help="What --output of a benchmark wrote.")],
    second: Annotated[Path, typer.Argument(metavar="B.json", help="Of the same benchmark, at another time or place.")],
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Compare two runs of a benchmark: every figure of both, their ratio and its spread."""
    from llmkit.bench.report import compare, draw, show

    document = compare(first, second)
    show(document)
    deliver(document, output, plot, draw, as_json=as_json)
