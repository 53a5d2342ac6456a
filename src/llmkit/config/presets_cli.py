"""List, show and copy presets: known-good settings to start from."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from llmkit.config import flags
from llmkit.errors import ConfigError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__)

LIST_EXAMPLES = """\b
Examples:
  llmkit presets list
  llmkit presets list train/grpo
"""
SHOW_EXAMPLES = """\b
Examples:
  llmkit presets show train/grpo/gsm8k
"""
COPY_EXAMPLES = """\b
Examples:
  llmkit presets copy train/grpo/gsm8k             to gsm8k.yaml, here
  llmkit presets copy train/grpo/gsm8k mine.yaml   then: llmkit train grpo --config mine.yaml
"""


def _complete_preset(incomplete: str) -> list[str]:
    from llmkit.config.presets import list_presets

    return [preset.name for preset in list_presets() if preset.name.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME", autocompletion=_complete_preset, help="Name of a preset, with or without its folder."
    ),
]


@app.command("list", epilog=LIST_EXAMPLES)
def list_(
    command: Annotated[
        str,
        typer.Argument(metavar="[COMMAND]", show_default=False, help="Only those of train/grpo, or of all of train."),
    ] = "",
    as_json: flags.Json = False,
) -> None:
    """List presets with the first line of what they say about themselves."""
    from llmkit.config.presets import OWN, list_presets

    presets = list_presets(command.strip("/"))
    if as_json:
        keys = ("name", "package", "summary")
        found = [{**{key: getattr(one, key) for key in keys}, "path": str(one.path)} for one in presets]
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    if not presets:
        typer.echo(f"No preset{f' of {command}' if command else ''}.", err=True)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    width = max((len(one.name) for one in presets), default=0)
    for one in presets:
        package = "" if one.package == OWN else f"  ({one.package})"
        typer.echo(f"{one.name:<{width}}  {one.summary}{package}"[:columns].rstrip())


@app.command(epilog=SHOW_EXAMPLES)
def show(name: Name) -> None:
    """Print a preset as it is written; `llmkit config show` gives it with all that it extends."""
    from llmkit.config.show import print_yaml

    print_yaml(_find(name).read_text(encoding="utf-8", errors="replace"))


@app.command(epilog=COPY_EXAMPLES)
def copy(
    name: Name,
    destination: Annotated[
        Path | None, typer.Argument(metavar="[DEST]", show_default=False, help="File or directory; here by default.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
) -> None:
    """Copy a preset to a file of yours, to change it."""
    source = _find(name)
    target = destination or Path(source.name)
    target = target / source.name if target.is_dir() else target
    if target.exists() and not force:
        raise ConfigError(f"{target}: this file is there already; choose another name, or overwrite it with --force")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    except OSError as error:
        raise ConfigError(f"{target}: cannot be written: {error.strerror or error}") from None
    typer.echo(target)


def _find(name: str) -> Path:
    """A preset by full name, or by short name when only one command has it."""
    from llmkit.config.presets import find_preset, list_presets

    package, _, bare = name.rpartition(":")
    found = [one for one in list_presets() if one.short_name == bare and (not package or one.package == package)]
    if len(found) > 1:
        names = ", ".join(f"{one.package}:{one.name}" if package else one.name for one in found)
        raise ConfigError(f"Several presets are named '{name}': {names}. Give the whole name.")
    return found[0].path if found else find_preset("", name)
