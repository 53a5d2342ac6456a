"""Show how settings resolve: values, where they come from, what they mean, and how two configurations differ."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmkit.config import flags
from llmkit.config.options import preset_option

if TYPE_CHECKING:
    from llmkit.config.resolve import Resolved

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

SHOW_EXAMPLES = """\b
Examples:
  llmkit config show train/grpo --preset gsm8k
  llmkit config show train/sft --config run.yaml --set optim.learning_rate=1e-6 > resolved.yaml
"""
EXPLAIN_EXAMPLES = """\b
Examples:
  llmkit config explain train/grpo optim.learning_rate --preset gsm8k
  llmkit config explain train/grpo optim algorithm
"""
DIFF_EXAMPLES = """\b
Examples:
  llmkit config diff train/grpo/gsm8k train/grpo/gsm8k-tiny
  llmkit config diff runs/first runs/second
  llmkit config diff a.yaml b.yaml --command train/sft
"""
SCHEMA_EXAMPLES = """\b
Examples:
  llmkit config schema train/grpo
  llmkit config schema train/grpo --json > grpo.schema.json
"""


def _complete_command(incomplete: str) -> list[str]:
    from llmkit.config.presets import list_presets  # knows the commands without importing a schema

    commands = {preset.command for preset in list_presets()}
    return sorted(command for command in commands if command.startswith(incomplete))


Command = Annotated[
    str,
    typer.Argument(metavar="COMMAND", autocompletion=_complete_command, help="The command: train/sft, train/grpo, ..."),
]
Preset = Annotated[str | None, preset_option(lambda ctx: ctx.params.get("command") or "")]


@app.command(epilog=SHOW_EXAMPLES)
def show(
    command: Command,
    preset: Preset = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    as_json: flags.Json = False,
) -> None:
    """Print the whole configuration of a run; a comment after each value says where it was set."""
    resolved = _resolve(command, preset, config, overrides)
    if as_json:
        _print_json(resolved.masked())
    else:
        from llmkit.config.show import print_yaml

        print_yaml(resolved.to_yaml())


@app.command(epilog=EXPLAIN_EXAMPLES)
def explain(
    command: Command,
    keys: Annotated[list[str], typer.Argument(metavar="KEY...", help="Keys or sections: optim.learning_rate, optim.")],
    preset: Preset = None,
    config: flags.ConfigFiles = None,
    overrides: flags.Overrides = None,
    as_json: flags.Json = False,
) -> None:
    """Explain keys: the value, who set it, what that overrode, what it means, its type, default and limits."""
    from llmkit.config.show import explanation_text

    resolved = _resolve(command, preset, config, overrides)
    found = [resolved.explain(path) for key in keys for path in _with_inner(resolved, key)]
    if as_json:
        from llmkit.config.show import explanation_dict

        _print_json([explanation_dict(one) for one in found])
    else:
        typer.echo("\n\n".join(explanation_text(one) for one in found))


@app.command(epilog=DIFF_EXAMPLES)
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="A preset, a file or a run directory.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    command: Annotated[
        str | None,
        typer.Option(
            "--command",
            metavar="COMMAND",
            autocompletion=_complete_command,
            help="Whose settings they are, when they do not tell.",
        ),
    ] = None,
    as_json: flags.Json = False,
) -> None:
    """Show the keys in which two configurations of one command differ, and where each of them is set."""
    from llmkit.config.comparing import compare
    from llmkit.config.show import difference_dict, difference_text

    found = compare(first, second, command, os.environ)
    if as_json:
        _print_json([difference_dict(one) for one in found])
    elif found:
        typer.echo("\n".join(difference_text(one, first, second) for one in found))
    else:
        typer.echo(f"No difference between {first} and {second}.", err=True)


@app.command(epilog=SCHEMA_EXAMPLES)
def schema(command: Command, as_json: flags.Json = False) -> None:
    """List every key of a command with type, default, limits and meaning; with --json, as a JSON schema for editors."""
    from llmkit.config.runs import schema_of

    if not as_json:
        from llmkit.config.show import schema_text

        typer.echo(schema_text(schema_of(command)))
        return
    from llmkit.config.json_schema import json_schema

    document, left_out = json_schema(schema_of(command), command)
    for reason in left_out:
        print(f"warning: left out: {reason}", file=sys.stderr)
    _print_json(document)


def _resolve(
    command: str, preset: str | None, files: list[Path] | None, overrides: list[str] | None
) -> "Resolved[Any]":
    from llmkit.config.resolve import resolve
    from llmkit.config.runs import schema_of

    return resolve(
        schema_of(command),
        command=command,
        preset=preset,
        files=files or [],
        overrides=overrides or [],
        keep_masked=True,
    )


def _with_inner(resolved: "Resolved[Any]", key: str) -> list[tuple[str, ...]]:
    """A key, or a section followed by every key in it."""
    return list(dict.fromkeys([tuple(key.split(".")), *resolved.leaf_paths(key)]))


def _print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))
