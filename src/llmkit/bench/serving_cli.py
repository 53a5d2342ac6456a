"""The command `llmkit bench serve`."""

from typing import Annotated

import typer

from llmkit.bench.options import AsJson, Output, Plot, deliver
from llmkit.errors import ConfigError

EXAMPLES = """\b
Examples:
  llmkit bench serve --url http://127.0.0.1:8000 --concurrency 1 --concurrency 8 --concurrency 64
  llmkit bench serve --model DIR --rate 2 --rate 8 --requests 100 --plot serve.png
  llmkit bench serve --preset echo --json
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=EXAMPLES)(serve)


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
    as_json: AsJson = False,
    output: Output = None,
    plot: Plot = None,
) -> None:
    """Measure a server: tokens per second, time to the first token and between tokens.

    Requests stream completions of random prompts at a concurrency or at a rate; ends of text are ignored.
    """
    from llmkit.bench.serving import ServeBench, measure
    from llmkit.bench.serving_table import draw

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
    deliver(measure(request), output, plot, draw, as_json=as_json)
