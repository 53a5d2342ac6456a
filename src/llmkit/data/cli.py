"""Look at data as a run reads it: rows with their trained tokens, and the figures of a whole set."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from llmkit.data.inspecting import options
from llmkit.errors import ConfigError, DataError

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved
    from llmkit.data.inspecting.looking import Findings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

INSPECT_EXAMPLES = """\b
Examples:
  llmkit data inspect chats.jsonl --model DIR              the first rows; what trains is marked
  llmkit data inspect chats.jsonl --row 17 --raw --tokens  one row in full, token by token
  llmkit data inspect pairs.jsonl --for dpo --sample       random preference pairs, both sides
  llmkit data inspect --preset train/sft/arithmetic        what a preset would train on
  llmkit data inspect --config run.yaml --html rows.html   a page to click through
\b
Faulty rows never end the look at the data: all that are met are listed. The exit code is what training would make of
them: 2 if it would stop, 0 if there are none or data.on_error=skip leaves them out.
"""
STATS_EXAMPLES = """\b
Examples:
  llmkit data stats chats.jsonl --model DIR --max-length 1024
  llmkit data stats --preset train/sft/gsm8k --html stats.html --plot lengths.png
  llmkit data stats pairs.jsonl --for dpo --num-workers 4 --json
  llmkit data stats --config run.yaml --overlength truncate_right --limit 10000
\b
Faulty rows never end the count: all are grouped by what is wrong, with the first places. The exit code is what training
would make of them: 2 if it would stop, 0 if there are none or data.on_error=skip leaves them out.
"""
INSPECTED_ROWS = 1000
KINDS = ("sft", "dpo", "grpo")


@app.command(epilog=INSPECT_EXAMPLES)
def inspect(
    ctx: typer.Context,
    path: options.Path_ = None,
    kind: options.For = None,
    preset: options.Preset = None,
    config: options.ConfigFiles = None,
    overrides: options.Overrides = None,
    model: options.Model = None,
    dataset: options.Dataset = None,
    formatter: options.Formatter = None,
    train_on: options.TrainOn = None,
    max_length: options.MaxLength = None,
    overlength: options.Overlength = None,
    on_error: options.OnError = None,
    rows: options.Rows = 3,
    row: options.RowNumbers = None,
    sample: options.Sample = False,
    seed: options.Seed = None,
    limit: options.NumCounted = INSPECTED_ROWS,
    raw: options.Raw = False,
    tokens: options.Tokens = False,
    num_workers: options.NumWorkers = None,
    html: options.Html = None,
    as_json: options.Json = False,
) -> None:
    """Show rows as they are trained on, message by message: which tokens train, what was cut, what is faulty.

    Figures of the first rows follow; --limit says of how many, and 0 leaves them out.
    """
    resolved = _resolve(ctx.params)
    _check_writable(html)
    from llmkit.data.inspecting.looking import look  # torch is first imported here

    findings = look(resolved, numbers=row or [], num_rows=rows, sample=sample, limit=limit)
    _show(findings, "data inspect", html=html, as_json=as_json, raw=raw, tokens=tokens)
    _end(findings)


@app.command(epilog=STATS_EXAMPLES)
def stats(
    ctx: typer.Context,
    path: options.Path_ = None,
    kind: options.For = None,
    preset: options.Preset = None,
    config: options.ConfigFiles = None,
    overrides: options.Overrides = None,
    model: options.Model = None,
    dataset: options.Dataset = None,
    formatter: options.Formatter = None,
    train_on: options.TrainOn = None,
    max_length: options.MaxLength = None,
    overlength: options.Overlength = None,
    on_error: options.OnError = None,
    limit: options.Limit = None,
    num_workers: options.NumWorkers = None,
    html: options.Html = None,
    plot: options.Plot = None,
    as_json: options.Json = False,
) -> None:
    """Count a whole set: rows and tokens, what trains, lengths, duplicates, packing, and every row that is not kept."""
    resolved = _resolve(ctx.params)
    _check_writable(html)
    _check_writable(plot)
    from llmkit.data.inspecting.looking import look

    findings = look(resolved, numbers=[], num_rows=0, sample=False, limit=limit)
    _show(findings, "data stats", html=html, as_json=as_json)
    if plot is not None:
        from llmkit.data.inspecting.plot import write_histogram

        write_histogram(plot, findings.figures.histogram if findings.figures else [])
    _end(findings)


def _resolve(parameters: Mapping[str, Any]) -> "Resolved[Any]":
    """The configuration of the run whose data is meant.

    Raises:
        ConfigError: nothing to look at was named, or a setting is wrong.
    """
    from llmkit.config.resolve import resolve
    from llmkit.config.runs import schema_of

    preset: str | None = parameters["preset"]
    files = [Path(file) for file in parameters["config"] or ()]
    overrides: list[str] = list(parameters["overrides"] or ())
    settings = options.settings(parameters)
    named = [*settings, *(name.lower().removeprefix("llmkit__") for name in os.environ if name.startswith("LLMKIT__"))]
    if not (preset or files or any(key.startswith("dataset") for key in (*named, *overrides))):
        raise ConfigError(
            "Nothing to look at. Name a file, a directory or a data set of the hub, a training preset with --preset "
            "NAME (`llmkit presets list train` shows them), or settings of a run with --config FILE"
        )
    command = _command(parameters["kind"], preset, files)
    return resolve(
        schema_of(command), command=command, preset=preset, files=files, options=settings, overrides=overrides
    )


def _command(kind: str | None, preset: str | None, files: list[Path]) -> str:
    """The command whose data is meant: as it was said, else what the preset or a file is for, else `train/sft`."""
    if kind is not None:
        if kind not in KINDS:
            raise ConfigError(f"--for {kind}: must be one of {', '.join(KINDS)}")
        return f"train/{kind}"
    from llmkit.config.comparing import command_of
    from llmkit.config.presets import list_presets

    for name in (*([preset] if preset else ()), *map(str, files)):
        parent = "/".join(Path(name).parts[-3:-1])
        if parent.removeprefix("train/") in KINDS and parent.startswith("train/"):
            return parent
        candidates = {one.command for one in list_presets("train") if name in (one.name, one.short_name)}
        command = "train/sft" if "train/sft" in candidates else command_of(name)
        if command is not None and command.removeprefix("train/") in KINDS:
            return command
    return "train/sft"


def _check_writable(file: Path | None) -> None:
    """Find out before the data is read whether a file can be written.

    Raises:
        ConfigError: it cannot.
    """
    if file is None:
        return
    if file.is_dir():
        raise ConfigError(f"{file}: this is a directory; name a file")
    if not file.absolute().parent.is_dir():
        raise ConfigError(f"{file}: there is no directory {file.parent}")
    if not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise ConfigError(f"{file}: cannot be written: no permission")


def _show(
    findings: "Findings",
    command: str,
    *,
    html: Path | None,
    as_json: bool,
    raw: bool = False,
    tokens: bool = False,
) -> None:
    """Write the page and print what was found."""
    if html is not None:
        from llmkit.data.inspecting.page import write_page

        write_page(html, findings, command)
    if as_json:
        from llmkit.data.inspecting.plain import plain

        document = json.dumps(plain(findings.to_dict(command, raw=raw)), indent=2, ensure_ascii=False)
        # Half of a surrogate pair, which UTF-8 cannot hold, becomes the escape that JSON has for it.
        typer.echo(document.encode("utf-8", "backslashreplace"))
    else:
        from llmkit.data.inspecting.printing import print_findings

        print_findings(findings, raw=raw, tokens=tokens)


def _end(findings: "Findings") -> None:
    """End as training would.

    Raises:
        DataError: rows are faulty and the run would not leave them out.
    """
    if (verdict := findings.verdict()) is not None:
        raise DataError(verdict)
