"""The options of `llmkit serve` and `llmkit chat`: which flag sets which key. The schema has their defaults."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from llmkit.config import options
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
    "tool_parser": "tool_parser",
    "reasoning_parser": "reasoning_parser",
    "device": "device.device",
    "threads": "device.threads",
    "direct": "server.direct",
}
"""Key of the configuration that each parameter sets. Their help and defaults come from the schema."""
SERVER_PATHS = {"tp": "tp", "pp": "pp", "dp": "dp", "max_model_len": "max_model_len"}
"""The same for parameters that set keys of `engine`, which engines with servers of their own have."""
EXTRA_ARGUMENTS = "llmkit.serve.extra_arguments"
"""Where a command's context keeps what was typed behind `--`."""
KINDS = {"engine": "engines"}
"""Parameters that choose a plugin, and of which kind."""
FLAGS = {"served_names": "--served-name"}
"""Flags that are not spelled as their parameter."""


def flag(parameter: str) -> str:
    """`keys_file` as it is typed: `--keys-file`."""
    return options.flag(parameter, FLAGS)


def settings(parameters: Mapping[str, Any]) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (flag, value).

    Raises:
        ConfigError: an adapter has no name or no directory.
    """
    adapters = map(named_adapter, parameters.get("lora") or ())
    paths = PATHS | {name: f"engine.{key}" for name, key in SERVER_PATHS.items()}
    return options.settings(parameters, paths, FLAGS) | {
        f"adapters.{name}": ("--lora", path) for name, path in adapters
    }


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


Preset = Annotated[str | None, options.preset_option(lambda ctx: "serve")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check settings, keys, port and model, say what they are, and stop.")
]
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
Tp = Annotated[int | None, typer.Option("--tp", metavar="COUNT")]
Pp = Annotated[int | None, typer.Option("--pp", metavar="COUNT")]
Dp = Annotated[int | None, typer.Option("--dp", metavar="COUNT")]
MaxModelLen = Annotated[int | None, typer.Option("--max-model-len", metavar="TOKENS")]
Direct = Annotated[bool | None, typer.Option("--direct")]
