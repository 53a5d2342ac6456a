"""Compare two configurations of one command: presets, files or run directories."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit.config.presets import list_presets
from llmkit.config.resolve import Resolved, resolve
from llmkit.config.runs import SCHEMAS, schema_of
from llmkit.config.tree import Origin, dotted
from llmkit.errors import ConfigError

RUN_HEADER = "# llmkit "
MISSING = "(not there)"


@dataclass(frozen=True)
class Difference:
    """One key that differs.

    Attributes:
        path: the key.
        values: of the first and of the second; `MISSING` where one has no such key.
        origins: where each was set; None where it is missing.
    """

    path: str
    values: tuple[Any, Any]
    origins: tuple[Origin | None, Origin | None]


def compare(first: str, second: str, command: str | None, environ: Mapping[str, str]) -> list[Difference]:
    """What differs between two presets, files or run directories.

    Args:
        first: what the user named.
        second: the other.
        command: the command that they configure; None finds out from their names or first lines.
        environ: variables for `${env:NAME}`; `LLMKIT__` settings, which would hit both, are left out.
    Raises:
        ConfigError: a name cannot be found, they are of different commands, or one does not resolve.
    """
    command = command or _common_command(first, second)
    variables = {name: value for name, value in environ.items() if not name.upper().startswith("LLMKIT__")}
    one, other = _resolved(first, command, variables), _resolved(second, command, variables)
    keys = [set(side.leaf_paths()) for side in (one, other)]
    found: list[Difference] = []
    for key in dict.fromkeys([*one.leaf_paths(), *other.leaf_paths()]):
        sides = [side if key in own else None for side, own in zip((one, other), keys, strict=True)]
        values = [side.value(key) if side else MISSING for side in sides]
        if values[0] != values[1]:
            origins = [side.origin(key) if side else None for side in sides]
            found.append(Difference(dotted(key), (values[0], values[1]), (origins[0], origins[1])))
    return found


def command_of(name: str) -> str | None:
    """The command that a preset, file or run directory configures, if its name or first line tells."""
    path = Path(name)
    file = path / "config.yaml" if path.is_dir() else path
    if file.is_file():
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline(200)
        words = first.removeprefix(RUN_HEADER).split() if first.startswith(RUN_HEADER) else []
        if "/".join(words) in SCHEMAS:
            return "/".join(words)
    full = name.rpartition(":")[2]
    commands = {preset.command for preset in list_presets() if full in (preset.name, preset.short_name)}
    return commands.pop() if len(commands) == 1 else None


def _common_command(first: str, second: str) -> str:
    found = {name: command_of(name) for name in (first, second)}
    commands = sorted({command for command in found.values() if command is not None})
    if len(commands) == 1:
        return commands[0]
    if commands:
        told = " and ".join(f"'{name}' is of {command}" for name, command in found.items())
        raise ConfigError(f"{told}; only configurations of one command can be compared")
    raise ConfigError(f"neither '{first}' nor '{second}' tells its command; say it with --command train/grpo")


def _resolved(name: str, command: str, environ: Mapping[str, str]) -> Resolved[Any]:
    path = Path(name)
    schema = schema_of(command)
    if path.is_dir():
        return resolve(schema, command=command, files=[path / "config.yaml"], environ=environ, keep_masked=True)
    return resolve(schema, command=command, preset=name, environ=environ, keep_masked=True)
