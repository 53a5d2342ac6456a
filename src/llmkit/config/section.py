"""The base of every configuration section."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr

Secret = SecretStr
"""A value that is masked wherever a configuration is shown."""


class Section(BaseModel):
    """A frozen group of settings that refuses unknown keys.

    A docstring under a field is its help text; `llmkit.config.docs` reads it from the source when it is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, validate_default=True, strict=False)


class PluginSection(Section):
    """Settings of one plugin: `name` chooses it, the rest is validated by the plugin's own `Config`."""

    plugin_kind: ClassVar[str] = ""
    """Of the plugin, such as `engines`; empty before one is chosen."""

    name: str
    """Name of the plugin; `llmkit plugins list` shows what is installed."""


@dataclass(frozen=True)
class PluginKind:
    """Marks a field as a plugin section of one kind; the resolver puts the chosen plugin's `Config` in its place.

    Attributes:
        kind: what comes after `llmkit.` in the entry-point group: `engines`, `datasets`, ...
        default: name of the plugin used when none is chosen; None when the section may be absent.
    """

    kind: str
    default: str | None = None


Nonsemantic = "nonsemantic"
"""Marks a field that changes where and how results are shown, never what is computed: it is left out of the hash."""


def all_defaults(section: Callable[..., Section]) -> Any:
    """The default of a field that holds a section: made when it is needed, so that importing a schema is quick."""
    return Field(default_factory=section)
