"""The command `llmkit bench serve`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, Python, deliver
from llmkit.bench.presets import Preset
from llmkit.errors import ConfigError

EXAMPLES = """\b
Examples:
  llmkit bench serve --url http://127.0.0.1:8000 --concurrency 1 --concurrency 8 --concurrency 64
  llmkit bench serve --model DIR --rate 2 --rate 8 --requests 100 --plot serve.html
  llmkit bench serve --model DIR --sweep --slo ttft=0.5 --slo itl=0.05 --input-tokens 64-512
  llmkit bench serve --model DIR --compare vllm --python vllm-env/bin/python --repeats 3
  llmkit bench serve --model DIR --engine vllm --compare direct --concurrency 16 --repeats 5 --no-stream
  llmkit bench serve --url http://gpu1:8000 --compare http://gpu2:8000 --shared-prefix 512
  llmkit bench serve --preset chat --model DIR
\b
--compare starts vllm or sglang (plugins llmkit-vllm, llmkit-sglang), or takes the address of a server; direct is the
server behind llmkit serve, asked without it. All get the same requests, in turn. --slo names seconds: ttft (first
token), itl (between tokens), e2e (last token). --lengths reads JSON lines with input_tokens and output_tokens, such as
a log of real requests.
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(serve)


def serve(
    preset: Preset = None,
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
    serve_preset: Annotated[
        str | None, typer.Option(metavar="NAME", show_default=False, help="Preset of a server that is started.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Setting of a server that is started.")
    ] = None,
    api_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", envvar="LLMKIT_API_KEY", show_default=False, help="For a server that needs one."),
    ] = None,
    compare: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PEER", show_default=False, help="Measure vllm, sglang, a URL or direct too; may be repeated."
        ),
    ] = None,
    python: Python = None,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Requests of each measurement.")] = 64,
    concurrency: Annotated[
        list[int] | None,
        typer.Option(metavar="N", min=1, help="Requests in flight at a time; may be repeated. [default: 8]"),
    ] = None,
    rate: Annotated[
        list[float] | None, typer.Option(metavar="N", min=1e-6, help="Requests sent a second; may be repeated.")
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Find the highest rate that is kept up with, from the first --rate, or 1.")
    ] = False,
    slo: Annotated[
        list[str] | None,
        typer.Option(metavar="WAIT=SECONDS", show_default=False, help="What requests are to keep to, for goodput."),
    ] = None,
    input_tokens: Annotated[str, typer.Option(metavar="N|LOW-HIGH", help="Tokens of each prompt.")] = "128",
    output_tokens: Annotated[str, typer.Option(metavar="N|LOW-HIGH", help="Tokens of each completion.")] = "128",
    lengths: Annotated[
        Path | None, typer.Option(metavar="FILE", show_default=False, help="Lengths to draw from in place of these.")
    ] = None,
    shared_prefix: Annotated[
        int, typer.Option(metavar="N", min=0, help="Tokens that prompts begin with in common, besides their own.")
    ] = 0,
    num_prefixes: Annotated[int, typer.Option(metavar="N", min=1, help="Different such beginnings.")] = 1,
    vocabulary: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts are of tokens below this.")] = 256,
    repeats: Annotated[int, typer.Option(metavar="N", min=1, help="Runs of each contender at each pace.")] = 1,
    warmups: Annotated[int, typer.Option(metavar="N", min=0, help="Requests before that do not count.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of prompts, and of the gaps between requests.")] = 0,
    stream: Annotated[bool, typer.Option(help="Ask for answers as they are drawn; otherwise whole.")] = True,
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure a server: tokens per second, time to the first token and between tokens, requests within goals.

    Requests are for completions of random prompts, at a concurrency or at a rate; ends of text are ignored.
    """
    from llmkit.bench.contenders import is_engine
    from llmkit.bench.goals import parse_goals
    from llmkit.bench.lengths import Traffic, parse_between, read_pairs
    from llmkit.bench.serving import Pace, ServeBench, measure
    from llmkit.bench.serving_table import draw

    if num_prefixes > 1 and not shared_prefix:
        raise ConfigError(f"--num-prefixes {num_prefixes} has no effect without --shared-prefix")
    if python is not None and not any(map(is_engine, compare or ())):
        raise ConfigError(f"--python {python} has no effect without --compare vllm or sglang")
    if sweep and len(rate or ()) > 1:
        raise ConfigError("--sweep begins with one --rate, and finds the others itself")
    started = {"--engine": engine, "--serve-preset": serve_preset, "--set": overrides}
    paces = [Pace(concurrency=count) for count in concurrency or (() if rate or sweep else (8,))]
    paces += [Pace(rate=one) for one in (rate or ()) if not sweep]
    request = ServeBench(
        url=url,
        serve_arguments=_serve_arguments(url, model, started),
        model=model,
        api_key=api_key,
        peers=tuple(compare or ()),
        python=python,
        num_requests=requests,
        paces=paces,
        sweep_from=(rate[0] if rate else 1.0) if sweep else None,
        traffic=Traffic(
            input_tokens=parse_between("--input-tokens", input_tokens),
            output_tokens=parse_between("--output-tokens", output_tokens),
            pairs=() if lengths is None else read_pairs(lengths),
            vocabulary=vocabulary,
            prefix_tokens=shared_prefix,
            num_prefixes=num_prefixes,
        ),
        goals=parse_goals(slo or ()),
        repeats=repeats,
        num_warmups=warmups,
        seed=seed,
        stream=stream,
    )
    deliver(measure(request), output, plot, draw, as_json=as_json)


def _serve_arguments(url: str | None, model: str | None, started: Mapping[str, str | list[str] | None]) -> list[str]:
    """The command line of `llmkit serve`.

    Raises:
        ConfigError: it would start nothing, and there are options for it.
    """
    if url is not None:
        if flag := next((flag for flag, value in started.items() if value), None):
            raise ConfigError(f"{flag} is about a server that is started, and has no effect with --url {url}")
        return []
    arguments = [] if model is None else ["--model", model]
    for flag, value in started.items():
        for one in value if isinstance(value, list) else [value] if value else []:
            arguments += [flag.replace("--serve-", "--"), one]
    return arguments
