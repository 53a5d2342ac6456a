"""The command `llmkit bench startup`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, Repeats, Threads, deliver
from llmkit.bench.presets import Preset
from llmkit.errors import ConfigError

EXAMPLES = """\b
Examples:
  llmkit bench startup --only commands
  llmkit bench startup --only serve --engine native --model DIR
  llmkit bench startup --only serve --compare vllm --python vllm-env/bin/python --repeats 2
  llmkit bench startup --only train --compare trl --python trl-env/bin/python
"""


class Part(StrEnum):
    """What can be measured by itself."""

    COMMANDS = "commands"
    SERVE = "serve"
    TRAIN = "train"


class Peer(StrEnum):
    """What starts beside llmkit."""

    VLLM = "vllm"
    SGLANG = "sglang"
    TRL = "trl"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(startup)


def startup(
    preset: Preset = None,
    only: Annotated[
        list[Part] | None, typer.Option(metavar="PART", help=f"Measure only this: {', '.join(Part)}. May be repeated.")
    ] = None,
    engine: Annotated[str, typer.Option(metavar="NAME", help="Engine of llmkit serve.")] = "native",
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", show_default=False, help="That is served; one with random weights by default."),
    ] = None,
    compare: Annotated[
        Peer | None,
        typer.Option(metavar="PEER", show_default=False, help=f"Start one of {', '.join(Peer)} too."),
    ] = None,
    python: Annotated[
        Path | None,
        typer.Option(metavar="PATH", show_default=False, help="Python of the environment with what is compared with."),
    ] = None,
    repeats: Repeats = 5,
    threads: Threads = 1,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure how long commands take to start, servers to answer, and training to make its first step.

    Contenders start in turn; the first start of each does not count.
    """
    from llmkit.bench.plot import draw
    from llmkit.bench.startup import StartupBench, measure

    parts = tuple(part.value for part in only or Part)
    if python is not None and compare is None:
        raise ConfigError(f"--python {python} has no effect without --compare")
    if compare is Peer.TRL and python is None:
        raise ConfigError("--compare trl needs --python PATH, the interpreter of an environment with it")
    if compare is not None and ("train" if compare is Peer.TRL else "serve") not in parts:
        raise ConfigError(f"--compare {compare} has no effect on --only {', '.join(parts)}")
    request = StartupBench(parts, engine, model, None if compare is None else compare.value, python, repeats, threads)
    deliver(measure(request), output, plot, draw, as_json=as_json)
