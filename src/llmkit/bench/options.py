"""Options that the commands of `llmkit bench` share, and what they do with their results."""

import json
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.errors import ConfigError


class TrlPeer(StrEnum):
    """What trains or prepares data beside llmkit, if it is installed somewhere."""

    TRL = "trl"


Compare = Annotated[
    list[TrlPeer] | None, typer.Option(metavar="PEER", help="Measure trl too, from the environment of --python.")
]
Python = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Python of an environment with what is compared with.")
]
Repeats = Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each contender that count.")]
Threads = Annotated[int, typer.Option(metavar="N", min=1, help="Cores and threads that each contender has.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Output = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON document to a file.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the figures: a PNG file, or a page (.html).")]


def peer_python(peer: str, package: str, python: Path | None, *, is_compared: bool) -> Path | None:
    """The interpreter to run a peer with, which lives in an environment of its own.

    Args:
        peer: as `--compare` names it.
        package: that has it.

    Raises:
        ConfigError: it was not named, is not there, or nothing is to be compared.
    """
    if not is_compared:
        if python is not None:
            raise ConfigError(f"--python {python} has no effect without --compare {peer}")
        return None
    example = f"{peer}-env/bin/python"
    if python is None:
        raise ConfigError(
            f"--compare {peer} needs --python PATH, the interpreter of an environment with it: "
            f"python3 -m venv {peer}-env && {peer}-env/bin/pip install {package}, then --python {example}"
        )
    if not python.is_file():
        raise ConfigError(f"--python {python}: no such file; name an interpreter, such as {example}")
    return python


def deliver(
    document: dict[str, Any],
    output: Path | None,
    plot: Path | None,
    draw: Callable[[dict[str, Any], Path], None],
    *,
    as_json: bool,
) -> None:
    """Write, draw and print what was found, as asked for."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if output is not None:
        from llmkit.disk import write_text

        write_text(output, text + "\n")
    if plot is not None and plot.suffix in (".html", ".htm"):
        from llmkit.bench.page import write_page

        write_page(document, plot, draw)
    elif plot is not None:
        draw(document, plot)
    if as_json:
        typer.echo(text)
