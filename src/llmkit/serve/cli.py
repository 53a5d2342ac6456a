"""Serve a model to OpenAI and Anthropic clients, over any engine."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.config import flags
from llmkit.serve import options
from llmkit.serve.help import ServeGroup
from llmkit.serve.keys_cli import app as keys

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved
    from llmkit.config.serving import ServeRun
    from llmkit.serve.server import Listening

EXAMPLES = """\b
Examples:
  llmkit serve                                       the embedded tiny model, on this machine alone
  llmkit serve --model DIR --port 8080 --lora poet=runs/poet/checkpoints/step-100
  llmkit serve --preset echo                         no model: answers are scripted
  llmkit serve keys new --name laptop && llmkit serve --model DIR --host 0.0.0.0 --keys-file ~/.config/llmkit/keys.json
  llmkit serve --engine vllm --model DIR --tp 2 -- --max-logprobs 50
  llmkit serve --model DIR --dry-run
"""

app = typer.Typer(pretty_exceptions_enable=False, help=__doc__)
app.add_typer(keys, name="keys")


@app.callback(cls=ServeGroup, invoke_without_command=True, epilog=EXAMPLES)
def serve(
    ctx: typer.Context,
    preset: options.Preset = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    dry_run: options.DryRun = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output when the server is ready.")
    ] = False,
    model: flags.Model = None,
    engine: flags.Engine = None,
    lora: options.Lora = None,
    host: options.Host = None,
    port: options.Port = None,
    served_names: options.ServedNames = None,
    keys_file: options.KeysFile = None,
    chat_template: options.ChatTemplate = None,
    tool_parser: options.ToolParser = None,
    reasoning_parser: options.ReasoningParser = None,
    dtype: options.Dtype = None,
    device: flags.Device = None,
    threads: flags.Threads = None,
    tp: options.Tp = None,
    pp: options.Pp = None,
    dp: options.Dp = None,
    max_model_len: options.MaxModelLen = None,
    direct: options.Direct = None,
) -> None:
    """Serve a model to OpenAI and Anthropic clients, over any engine.

    What comes behind -- is passed to the engine's own server program as it is.
    """
    if ctx.invoked_subcommand is not None:
        return
    from llmkit.serve.extra import check_extra

    resolved = resolve_run(ctx.params, ctx.meta.get(options.EXTRA_ARGUMENTS, ()))
    check_extra()
    if dry_run:
        from llmkit.serve.dry_run import look

        _print(look(resolved.run), as_json=as_json)
        return
    if resolved.run.server.direct:
        from llmkit.serve.direct import serve as run_server
    else:
        from llmkit.serve.server import serve as run_server  # torch is first imported here

    typer.echo(f"Loading {resolved.run.model.path} with the engine '{resolved.run.engine.name}' ...", err=True)
    run_server(resolved.run, lambda listening: _tell(listening, as_json=as_json))


def resolve_run(parameters: Any, extra_arguments: Sequence[str] = ()) -> "Resolved[ServeRun]":
    """The settings that a command line asks for.

    Args:
        extra_arguments: what comes behind `--`.
    Raises:
        ConfigError: a setting is wrong.
    """
    from llmkit.config.resolve import resolve
    from llmkit.config.serving import ServeRun

    return resolve(
        ServeRun,
        command="serve",
        preset=parameters["preset"],
        files=parameters["config"] or (),
        options=options.settings(parameters)
        | ({"engine.extra_args": ("--", list(extra_arguments))} if extra_arguments else {}),
        overrides=parameters["overrides"] or (),
    )


def _tell(listening: "Listening", *, as_json: bool) -> None:
    """Say that the server takes requests, and how to ask."""
    key = " with an API key" if listening.needs_key else ""
    typer.echo(f"Serving {', '.join(listening.models)} on {listening.url}{key}; Ctrl-C stops.", err=True)
    if as_json:
        from dataclasses import asdict

        print(json.dumps(asdict(listening)), flush=True)


def _print(facts: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(facts, indent=2, ensure_ascii=False))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        typer.echo(
            f"{name:<{width}}  {', '.join(map(str, value)) if isinstance(value, list | tuple) else value}", err=True
        )
