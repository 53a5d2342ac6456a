"""What one source of settings asks for: values at paths, from files, environment, options and `--set`."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from llmkit.config.scalars import read_scalar, write_flow
from llmkit.config.tree import KeyPath, Layer, Node, Origin, from_plain, moved
from llmkit.config.yaml_files import parse_yaml
from llmkit.errors import ConfigError

ENVIRONMENT_PREFIX = "LLMKIT__"
KEY = re.compile(r"[^\s.=~\[\]]+(\.[^\s.=~\[\]]+)*")

Options = Mapping[str, tuple[str, Any]]
"""Command-line options by the key that they set: `{"optim.learning_rate": ("--learning-rate", 1e-6)}`; an option with
the value None was not given."""


@dataclass(frozen=True, slots=True)
class Change:
    """One request to change the settings.

    Attributes:
        path: where; empty for a whole file.
        node: what to put there; None resets to the default.
        origin: who asks.
    """

    path: KeyPath
    node: Node | None
    origin: Origin

    @property
    def is_reset(self) -> bool:
        """Whether it takes a setting back."""
        return self.node is None


def file_change(node: Node) -> Change:
    """Everything that a file says."""
    return Change((), node, node.origin)


def environment_changes(environ: Mapping[str, str]) -> list[Change]:
    """Changes asked for by variables such as `LLMKIT__OPTIM__LEARNING_RATE`; outer keys come before inner ones.

    Raises:
        ConfigError: a variable names no key, or its value is broken YAML.
    """
    changes: list[Change] = []
    for name in sorted(environ):
        if name.upper().startswith(ENVIRONMENT_PREFIX):
            path = tuple(name[len(ENVIRONMENT_PREFIX) :].lower().split("__"))
            if not all(path):
                raise ConfigError(f"{name}: no key between the underscores; the form is LLMKIT__SECTION__KEY")
            changes.append(_typed("environment", name, path, environ[name]))
    return sorted(changes, key=lambda change: len(change.path))


def option_changes(options: Options) -> list[Change]:
    """Changes asked for by command-line options."""
    changes: list[Change] = []
    for key, (flag, value) in options.items():
        if value is not None:
            value = _bare(value)
            origin = Origin("option", flag, value if isinstance(value, str) else write_flow(value))
            changes.append(Change(tuple(key.split(".")), from_plain(value, origin), origin))
    return changes


def set_change(text: str) -> Change:
    """The change that one `--set` asks for: `a.b=value`, or `~a.b` to go back to the default.

    Raises:
        ConfigError: it has another form, or the value is broken YAML.
    """
    if text.startswith("~"):
        key = text[1:].strip()
        if KEY.fullmatch(key):
            return Change(tuple(key.split(".")), None, Origin("set", f"--set ~{key}"))
        raise ConfigError(f"--set {text}: the form is ~section.key, which takes no value")
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not KEY.fullmatch(key):
        raise ConfigError(f"--set {text}: the form is section.key=value, or ~section.key to go back to the default")
    return _typed("set", f"--set {key}", tuple(key.split(".")), value)


def _bare(value: Any) -> Any:
    """An option's value as YAML would give it."""
    if isinstance(value, list | tuple):
        return [_bare(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _typed(layer: Layer, place: str, path: KeyPath, text: str) -> Change:
    """A change typed in a shell: brackets and quotes are YAML, everything else is one plain value."""
    text = text.strip()
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ConfigError(f"{place}: the value is not UTF-8")
    if not text.startswith(("[", "{", '"', "'")):
        origin = Origin(layer, place, text, plain=True)
        return Change(path, Node(read_scalar(text), origin, origin), origin)
    origin = Origin(layer, place, text)
    try:
        parsed = parse_yaml(text, place, layer)
    except ConfigError as error:
        problem = str(error).removeprefix(f"{place}:")
        hint = '; a pattern is a text in quotes: ["*.bias"]' if "*" in text else ""
        raise ConfigError(f"{place}={text}: the value at character {problem.partition(':')[2]}{hint}") from None
    assert parsed is not None
    return Change(path, moved(parsed, origin), origin)
