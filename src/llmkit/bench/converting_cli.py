"""The command `llmkit bench convert`."""

from enum import StrEnum
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, Repeats, Threads, deliver
from llmkit.bench.presets import Preset

EXAMPLES = """\b
Examples:
  llmkit bench convert --model 600m --dtype float32 --repeats 1
  llmkit bench convert --model DIR --only gguf-q4_k_m --only from-dcp
"""


class Conversion(StrEnum):
    """What can be measured by itself."""

    FLOAT16 = "float16"
    FLOAT32 = "float32"
    DCP = "dcp"
    FROM_DCP = "from-dcp"
    TORCH = "torch"
    FROM_TORCH = "from-torch"
    GGUF_F16 = "gguf-f16"
    GGUF_Q4_K_M = "gguf-q4_k_m"
    MERGE = "merge"
    ADAPTER = "adapter"


class Dtype(StrEnum):
    """Of weights that are made."""

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(convert)


def convert(
    preset: Preset = None,
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="Directory, or a shape with random weights: 5m, 20m, 60m, 150m, 600m.")
    ] = "60m",
    dtype: Annotated[
        Dtype, typer.Option(metavar="DTYPE", help=f"Of random weights: {', '.join(Dtype)}.")
    ] = Dtype.BFLOAT16,
    only: Annotated[
        list[Conversion] | None,
        typer.Option(metavar="NAME", help=f"Measure only this: {', '.join(Conversion)}. May be repeated."),
    ] = None,
    repeats: Repeats = 3,
    threads: Threads = 1,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure how long conversions of a checkpoint take, and the most memory that each holds.

    Each is a command of its own, its start included.
    """
    from llmkit.bench.converting import ConvertBench, measure
    from llmkit.bench.plot import draw

    cases = tuple(one.value for one in only or Conversion)
    deliver(measure(ConvertBench(cases, model, dtype.value, repeats, threads)), output, plot, draw, as_json=as_json)
