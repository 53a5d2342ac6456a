"""Measure this machine at what training and serving do with it, side by side with other libraries."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit.bench import generation_cli
from llmkit.bench.chats import ACCENTS

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)
generation_cli.register(app)

DATA_EXAMPLES = """\b
Examples:
  llmkit bench data
  llmkit bench data chats.jsonl --model DIR --only tokenize
  llmkit bench data --compare trl --python trl-env/bin/python --plot data.png
"""
TRAIN_EXAMPLES = """\b
Examples:
  llmkit bench train --only sft-5m
  llmkit bench train --compare trl --python trl-env/bin/python
  llmkit bench train --compare trl --python trl-env/bin/python --only sft-same-losses --warmup-steps 50
"""


SERVE_EXAMPLES = """\b
Examples:
  llmkit bench serve --url http://127.0.0.1:8000 --concurrency 1 --concurrency 8 --concurrency 64
  llmkit bench serve --model DIR --rate 2 --rate 8 --requests 100 --plot serve.png
  llmkit bench serve --preset echo --json
"""


class Part(StrEnum):
    """What can be measured by itself."""

    TOKENIZE = "tokenize"
    PACKING = "packing"
    START = "start"
    STREAMING = "streaming"


class Training(StrEnum):
    """Training that can be measured by itself."""

    SFT_SAME_LOSSES = "sft-same-losses"
    SFT_5M = "sft-5m"
    SFT_5M_FP32 = "sft-5m-fp32"
    SFT_60M = "sft-60m"
    SFT_152K = "sft-152k"
    DPO_5M = "dpo-5m"
    DPO_60M = "dpo-60m"
    GRPO = "grpo"
    GRPO_UPDATE = "grpo-update"


class Device(StrEnum):
    """Where contenders train."""

    CPU = "cpu"
    CUDA = "cuda"


class Peer(StrEnum):
    """What can be measured beside llmkit, if it is installed somewhere."""

    TRL = "trl"


@app.callback()
def bench() -> None:
    """Measure this machine at what training and serving do with it, side by side with other libraries."""


@app.command(epilog=DATA_EXAMPLES)
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
    only: Annotated[
        list[Part] | None, typer.Option(metavar="PART", help=f"Measure only this: {', '.join(Part)}. May be repeated.")
    ] = None,
    compare: Annotated[
        list[Peer] | None, typer.Option(metavar="PEER", help="Measure trl too, from the environment of --python.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Python of an environment with what is compared with.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, show_default=False, help="Chats; by default 5000 to tokenize and 100000 to start with."
        ),
    ] = None,
    lengths: Annotated[int, typer.Option(metavar="N", min=10, help="Lengths to pack.")] = 1_000_000,
    stream_mb: Annotated[int, typer.Option(metavar="N", min=1, help="Megabytes to stream.")] = 300,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each contender that count.")] = 5,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Cores and threads that each contender has.")] = 1,
    accents: Annotated[
        float,
        typer.Option(
            metavar="SHARE", min=0, max=1, help="Made-up words with an accent: few in English, many in French."
        ),
    ] = ACCENTS,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON document to a file.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the figures to a PNG file.")] = None,
) -> None:
    """Measure tokenizing, packing, the start on cached rows, and the memory of streaming.

    Contenders run in turn, in processes of their own, on the same cores; times are medians. The load of other processes
    is measured with them.
    """
    from llmkit.bench.data import DataBench, measure
    from llmkit.errors import ConfigError

    if path is not None and accents != ACCENTS:
        raise ConfigError(f"--accents {accents} is about made-up chats and has no effect on {path}")
    request = DataBench(
        path=path,
        model=model,
        parts=tuple(part.value for part in only or Part),
        trl_python=_trl_python(compare or [], python),
        rows=rows,
        num_lengths=lengths,
        stream_megabytes=stream_mb,
        repeats=repeats,
        threads=threads,
        accents=accents,
    )
    _deliver(measure(request), output, plot, as_json=as_json)


@app.command(epilog=TRAIN_EXAMPLES)
def train(
    only: Annotated[
        list[Training] | None,
        typer.Option(metavar="CASE", help=f"Measure only this: {', '.join(Training)}. May be repeated."),
    ] = None,
    compare: Annotated[
        list[Peer] | None, typer.Option(metavar="PEER", help="Train with trl too, from the environment of --python.")
    ] = None,
    python: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Python of an environment with what is compared with.")
    ] = None,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Turns of each contender that count.")] = 4,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Optimizer steps in a turn.")] = 3,
    warmup_steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Steps before the first turn, compared by their losses alone.")
    ] = 2,
    threads: Annotated[int, typer.Option(metavar="N", min=1, help="Cores and threads that each contender has.")] = 1,
    device: Annotated[
        Device, typer.Option(metavar="DEVICE", help=f"Where to train: {', '.join(Device)}.")
    ] = Device.CPU,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON document to a file.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the figures to a PNG file.")] = None,
) -> None:
    """Measure training steps of SFT, DPO and GRPO: tokens per second, memory, and whether losses are the same.

    Models have random weights and the shape of Qwen3; rows are made up, and the same for everyone. `llmkit train` and
    TRL's own trainers run in processes of their own, a few steps in turn. TRL runs in several ways (autocast, weights
    in bfloat16, padded or not), and each figure is compared with the best of theirs. Speeds are compared only where
    losses are the same but for rounding.
    """
    from llmkit.bench.training import TrainBench, measure

    request = TrainBench(
        cases=tuple(case.value for case in only or Training),
        trl_python=_trl_python(compare or [], python),
        repeats=repeats,
        steps=steps,
        warmup_steps=warmup_steps,
        threads=threads,
        device=device.value,
    )
    _deliver(measure(request), output, plot, as_json=as_json)


def _deliver(document: dict[str, Any], output: Path | None, plot: Path | None, *, as_json: bool) -> None:
    """Write, draw and print what was found, as asked for."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if output is not None:
        from llmkit.disk import write_text

        write_text(output, text + "\n")
    if plot is not None:
        from llmkit.bench.plot import draw

        draw(document, plot)
    if as_json:
        typer.echo(text)


@app.command(epilog=SERVE_EXAMPLES)
def serve(
    url: Annotated[
        str | None,
        typer.Option(metavar="URL", show_default=False, help="A running server; by default one is started."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="MODEL", show_default=False, help="Model of a server that is started; else its name."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Engine of a server that is started.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Preset of a server that is started.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of a server that is started.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="LLMKIT_API_KEY", show_default=False, help="For a server that needs one."),
    ] = None,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Requests of each measurement.")] = 64,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="Requests in flight at a time; may be repeated. [default: 8]"),
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(metavar="N", min=1e-6, help="Requests sent a second; may be repeated.")
    ] = None,
    input_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each prompt.")] = 128,
    output_tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of each completion.")] = 128,
    vocabulary: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts are of tokens below this.")] = 256,
    warmups: Annotated[int, typer.Option(metavar="N", min=0, help="Requests before that do not count.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of prompts, and of the gaps between requests.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the JSON document to a file.")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw the figures to a PNG file.")] = None,
) -> None:
    """Measure a server: tokens per second, time to the first token and between tokens.

    Requests stream completions of random prompts at a concurrency or at a rate; ends of text are ignored.
    """
    from llmkit.bench.serving import ServeBench, measure
    from llmkit.errors import ConfigError

    started = {"--engine": engine, "--preset": preset, "--set": overrides}
    if url is not None:
        for flag, value in started.items():
            if value:
                raise ConfigError(f"{flag} is about a server that is started, and has no effect with --url {url}")
    arguments = [] if url is not None or model is None else ["--model", model]
    for flag, value in started.items():
        for one in value if isinstance(value, list) else [value] if value else []:
            arguments += [flag, one]
    request = ServeBench(
        url=url,
        serve_arguments=arguments,
        model=model if url is not None else None,
        api_key=api_key,
        num_requests=requests,
        concurrency=tuple(concurrency or (() if rate else (8,))),
        rates=tuple(rate or ()),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        vocabulary=vocabulary,
        num_warmups=warmups,
        seed=seed,
    )
    document = measure(request)
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if output is not None:
        from llmkit.disk import write_text

        write_text(output, text + "\n")
    if plot is not None:
        from llmkit.bench.serving_table import draw

        draw(document, plot)
    if as_json:
        typer.echo(text)


def _trl_python(compare: list[Peer], python: Path | None) -> Path | None:
    """The interpreter to run TRL with.

    Raises:
        ConfigError: it was not named, is not there, or nothing is to be compared.
    """
    from llmkit.errors import ConfigError

    if not compare:
        if python is not None:
            raise ConfigError(f"--python {python} has no effect without --compare trl")
        return None
    if python is None:
        raise ConfigError(
            "--compare trl needs --python PATH, the interpreter of an environment with TRL: "
            "python3 -m venv trl-env && trl-env/bin/pip install trl, then --python trl-env/bin/python"
        )
    if not python.is_file():
        raise ConfigError(f"--python {python}: no such file; name an interpreter, such as trl-env/bin/python")
    return python
