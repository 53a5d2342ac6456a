"""The options of `llmkit serve` and `llmkit chat`: which flag sets which key. The schema has their defaults."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from llmkit import plugins
from llmkit.errors import ConfigError

PATHS = {
    "model": "model.path",
    "engine": "engine.name",
    "chat_template": "model.chat_template",
    "dtype": "model.dtype",
    "host": "server.host",
    "port": "server.port",
    "served_names": "server.served_names",
    "keys_file": "auth.keys_file",
    "lora": "adapters",
    "tool_parser": "tool_parser",
    "reasoning_parser": "reasoning_parser",
    "device": "device.device",
    "threads": "device.threads",
}
"""Key of the configuration that each parameter sets. Their help and defaults come from the schema."""
FLAGS = {"served_names": "--served-name"}
"""Flags that are not spelled as their parameter."""


def flag(parameter: str) -> str:
    """`keys_file` as it is typed: `--keys-file`."""
    return FLAGS.get(parameter) or "--" + parameter.replace("_", "-")


def settings(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (flag, value).

    Raises:
        ConfigError: an adapter has no name or no directory.
    """
    given = {name: value for name, value in parameters.items() if name in PATHS and value not in (None, [], ())}
    found: dict[str, tuple[str, Any]] = {}
    for name, value in given.items():
        if name == "lora":
            found |= {f"adapters.{adapter}": ("--lora", path) for adapter, path in map(named_adapter, value)}
        else:
            found[PATHS[name]] = (flag(name), list(value) if isinstance(value, list | tuple) else value)
    return found


def named_adapter(text: str) -> tuple[str, str]:
    """`name=directory` in two.

    Raises:
        ConfigError: one of them is missing, or the name has a dot.
    """
    name, equals, path = text.partition("=")
    if not (name and equals and path):
        raise ConfigError(
            f"--lora {text}: give a name and a directory, as in --lora poet=runs/poet/checkpoints/step-100"
        )
    if "." in name:
        raise ConfigError(f"--lora {text}: a name with a dot cannot be given here; write it into a --config file")
    return name, path


def _complete_preset(incomplete: str) -> list[str]:
    from llmkit.config.presets import list_presets

    names = (preset.name.removeprefix("serve/") for preset in list_presets("serve"))
    return [name for name in names if name.startswith(incomplete)]


def _complete_engine(incomplete: str) -> list[str]:
    return [name for name in plugins.names("engines") if name.startswith(incomplete)]


Preset = Annotated[
    str | None,
    typer.Option("--preset", "-p", metavar="NAME", help="Settings to start from.", autocompletion=_complete_preset),
]
ConfigFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML settings over the preset's; later files win. Repeatable."
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Set any key; wins over all else. `~KEY` resets to the default. Repeatable."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings, keys, port and model, say what they are, and stop.")
]
Model = Annotated[str | None, typer.Option("--model", metavar="PATH")]
Engine = Annotated[str | None, typer.Option("--engine", metavar="NAME", autocompletion=_complete_engine)]
ChatTemplate = Annotated[str | None, typer.Option("--chat-template", metavar="NAME")]
Dtype = Annotated[str | None, typer.Option("--dtype", metavar="NAME")]
Host = Annotated[str | None, typer.Option("--host", metavar="ADDRESS")]
Port = Annotated[int | None, typer.Option("--port", metavar="NUMBER")]
ServedNames = Annotated[list[str] | None, typer.Option("--served-name", metavar="NAME")]
KeysFile = Annotated[str | None, typer.Option("--keys-file", metavar="FILE")]
Lora = Annotated[
    list[str] | None,
    typer.Option(
        "--lora", metavar="NAME=DIR", help="An adapter to load, and the name that requests use for it. Repeatable."
    ),
]
ToolParser = Annotated[str | None, typer.Option("--tool-parser", metavar="NAME")]
ReasoningParser = Annotated[str | None, typer.Option("--reasoning-parser", metavar="NAME")]
Device = Annotated[str | None, typer.Option("--device", metavar="NAME")]
Threads = Annotated[int | None, typer.Option("--threads", metavar="COUNT")]
