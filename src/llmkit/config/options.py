"""What the options of configured commands share: which key a flag sets, where settings come from, completion, help.

Commands list their own options; their defaults and their help come from the schema.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import typer

from llmkit import plugins

if TYPE_CHECKING:
    from llmkit.config.section import Section


def flag(parameter: str, spelled: Mapping[str, str]) -> str:
    """`learning_rate` as it is typed: `--learning-rate`.

    Args:
        spelled: flags that are not spelled as their parameter.
    """
    return spelled.get(parameter) or "--" + parameter.replace("_", "-")


def settings(
    parameters: Mapping[str, Any], paths: Mapping[str, str], spelled: Mapping[str, str]
) -> dict[str, tuple[str, Any]]:
    """What was set on the command line: key of the configuration -> (flag, value).

    Args:
        parameters: values of the options; those that were not given are None or empty.
        paths: key that each parameter sets; other parameters are left out.
        spelled: see `flag`.
    """
    return {
        paths[name]: (flag(name, spelled), list(value) if isinstance(value, list | tuple) else value)
        for name, value in parameters.items()
        if name in paths and value not in (None, [], ())
    }


def preset_option(folder: Callable[[typer.Context], str]) -> Any:
    """`--preset`.

    Args:
        folder: of the presets to complete: `serve`, `train/grpo`.
    """

    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        from llmkit.config.presets import list_presets

        command = folder(ctx)
        names = (preset.name.removeprefix(f"{command}/") for preset in list_presets(command))
        return [name for name in names if name.startswith(incomplete)]

    return typer.Option("--preset", "-p", metavar="NAME", help="Settings to start from.", autocompletion=complete)


def plugin_option(kind: str, spelled: str) -> Any:
    """An option that chooses a plugin."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in plugins.names(kind) if name.startswith(incomplete)]

    return typer.Option(spelled, metavar="NAME", autocompletion=complete)


SERVER_PATHS = {"tp": "engine.tp", "pp": "engine.pp", "dp": "engine.dp"}
"""Keys that these set; engines that start servers have them."""


def describe_options(options: Any, schema: "type[Section]", paths: Mapping[str, str], kinds: Mapping[str, str]) -> None:
    """Fill in the help of the options that set keys: meaning, installed plugins, default.

    Args:
        options: the parameters of a command.
        paths: key that each of them sets.
        kinds: those that choose a plugin, and of which kind.
    """
    from llmkit.config.docs import describe

    for option in options:
        path = paths.get(option.name)
        if path is None or option.help:
            continue
        kind = kinds.get(option.name)
        field = describe(schema, path.removesuffix(".name"))
        installed = f" One of: {', '.join(plugins.names(kind))}." if kind else ""
        default = f" [default: {field.default}]" if field.default not in (None, [], ()) else ""
        option.help = f"{field.help}{installed}{default}"
