"""The command `llmkit bench data`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmkit.bench.chats import ACCENTS
from llmkit.bench.options import AsJson, Compare, Output, Plot, Python, Repeats, Threads, deliver, peer_python
from llmkit.bench.presets import Preset
from llmkit.errors import ConfigError

EXAMPLES = """\b
Examples:
  llmkit bench data
  llmkit bench data chats.jsonl --model DIR --only tokenize
  llmkit bench data --only convert --rows 1000000 --repeats 3
  llmkit bench data --compare trl --python trl-env/bin/python --plot data.png
"""


class Part(StrEnum):
    """What can be measured by itself."""

    TOKENIZE = "tokenize"
    PACKING = "packing"
    START = "start"
    STREAMING = "streaming"
    CONVERT = "convert"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(data)


def data(
    path: Annotated[
        Path | None,
        typer.Argument(metavar="[PATH]", show_default=False, help="Chats to tokenize; made-up ones by default."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", show_default=False, help="Whose tokenizer to use; by default one is trained on the chats."
        ),
    ] = None,
    preset: Preset = None,
    only: Annotated[
        list[Part] | None, typer.Option(metavar="PART", help=f"Measure only this: {', '.join(Part)}. May be repeated.")
    ] = None,
    compare: Compare = None,
    python: Python = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            show_default=False,
            help="Chats; by default 5000 to tokenize, 100000 to start with and 200000 to convert.",
        ),
    ] = None,
    lengths: Annotated[int, typer.Option(metavar="N", min=10, help="Lengths to pack.")] = 1_000_000,
    stream_mb: Annotated[int, typer.Option(metavar="N", min=1, help="Megabytes to stream.")] = 300,
    repeats: Repeats = 5,
    threads: Threads = 1,
    accents: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Made-up words with an accent: few in English, many in French."
        ),
    ] = ACCENTS,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure tokenizing, packing, the start on cached rows, the memory of streaming, and JSON Lines to Parquet.

    Contenders run in turn, in processes of their own, on the same cores; times are medians. The load of other processes
    is measured with them.
    """
    from llmkit.bench.data import DataBench, measure
    from llmkit.bench.plot import draw

    if path is not None and accents != ACCENTS:
        raise ConfigError(f"--accents {accents} is about made-up chats and has no effect on {path}")
    request = DataBench(
        path=path,
        model=model,
        parts=tuple(part.value for part in only or Part),
        trl_python=peer_python("trl", "trl", python, is_compared=bool(compare)),
        rows=rows,
        num_lengths=lengths,
        stream_megabytes=stream_mb,
        repeats=repeats,
        threads=threads,
        accents=accents,
    )
    deliver(measure(request), output, plot, draw, as_json=as_json)
