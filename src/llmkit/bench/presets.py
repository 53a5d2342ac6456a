"""Presets of the commands `llmkit bench ...`: their options by name, in YAML; what is typed wins."""

from typing import Annotated, Any

import typer

from llmkit.errors import ConfigError

NOT_IN_PRESETS = ("preset", "help")


def take_preset(context: typer.Context, name: str | None) -> str | None:
    """Make a preset's values the defaults of the command's other options.

    Raises:
        ConfigError: there is no such preset, or it names an option that the command does not have.
    """
    if name is None or context.resilient_parsing:
        return name
    from llmkit.config.presets import find_preset
    from llmkit.config.suggestions import closest
    from llmkit.config.tree import plain
    from llmkit.config.yaml_files import read_yaml

    command = f"bench/{context.info_name}"
    try:
        path = find_preset(command, name)
    except ConfigError as error:
        raise ConfigError(f"--preset {name}: {error}") from None
    known = option_names(context)
    defaults: dict[str, Any] = {}
    for key, node in read_yaml(path, "preset").value.items():
        if key not in known:
            guess = closest(key, known)
            hint = f" Did you mean '{guess}'?" if guess else f" It has: {', '.join(sorted(known))}."
            raise ConfigError(f"{node.origin.place}: llmkit {command.replace('/', ' ')} has no option '{key}'.{hint}")
        value = plain(node)
        defaults[known[key].name] = [value] if known[key].multiple and not node.is_list else value
    context.default_map = {**(context.default_map or {}), **defaults}
    return name


def option_names(context: typer.Context) -> dict[str, Any]:
    """The command's parameters by the names that a preset gives them: `--input-tokens` is `input_tokens`."""
    return {
        flag.lstrip("-").replace("-", "_"): parameter
        for parameter in context.command.params
        for flag in parameter.opts
        if flag.lstrip("-") not in NOT_IN_PRESETS
    }


def check_preset(benchmark: str, name: str) -> dict[str, Any]:
    """Read a preset as the command would; returns the values of its options.

    Args:
        benchmark: `serve`, say.
        name: of the preset.

    Raises:
        ConfigError: there is no such preset, or it names an option that the command does not have.
    """
    from llmkit.bench.cli import app

    command = typer.main.get_command(app).commands[benchmark]  # type: ignore[attr-defined]
    return command.make_context(benchmark, ["--preset", name]).params


Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="NAME",
        is_eager=True,
        callback=take_preset,
        show_default=False,
        help="Options by name, from a file; `llmkit presets list bench` shows those that come along.",
    ),
]
