"""Algorithms by name: presets that hold an algorithm's settings and nothing else, to lay over a whole run."""

from difflib import get_close_matches
from pathlib import Path

from llmkit.config.presets import ALGORITHMS, find_preset, list_presets
from llmkit.errors import ConfigError


def find_algorithm(command: str, name: str) -> Path:
    """The file of `--algorithm NAME`: ours, a plugin's (also as `package:name`), or a path.

    Args:
        command: `train/grpo` and the like.
        name: what the user typed.
    Raises:
        ConfigError: there is no algorithm of this name for the command.
    """
    package, colon, bare = name.rpartition(":")
    known = algorithm_names(command)
    if bare in known:
        return find_preset(command, f"{package}{colon}{ALGORITHMS}/{bare}")
    path = Path(name).expanduser()
    if path.is_file():
        return path
    close = get_close_matches(bare.lower().replace("-", "_"), known, n=1)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    raise ConfigError(
        f"--algorithm {name}: no algorithm of this name for `llmkit {command.replace('/', ' ')}`. "
        f"{hint}There are: {', '.join(known)}; a file of your own goes by its path"
    )


def algorithm_names(command: str) -> list[str]:
    """Algorithms of a command, sorted."""
    return sorted({preset.short_name for preset in list_presets(command) if preset.is_algorithm})
