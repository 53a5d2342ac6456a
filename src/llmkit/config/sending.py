"""Sections of plugins made of plain values, and sent to other processes of this machine.

The classes of resolved sections are made while settings are resolved, so pickle cannot find them by name: their values
are sent, secrets included, and the other process makes the section anew.
"""

import pickle
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import create_model

from llmkit.config.concrete import concretize
from llmkit.config.problems import Problems
from llmkit.config.section import PluginKind, PluginSection, Section
from llmkit.config.tree import DEFAULT, from_plain, plain


def section_of(kind: str, values: Mapping[str, Any]) -> PluginSection:
    """The section of the plugin that `values` name, as a run has it: sections of plugins within it are theirs.

    Raises:
        ConfigError: a plugin is not there.
        ValidationError: a value is wrong.
    """
    marked: Any = Annotated[PluginSection, PluginKind(kind)]
    holder = create_model("Holder", __base__=Section, plugin=(marked, ...))
    problems = Problems()
    concrete = concretize(holder, from_plain({"plugin": values}, DEFAULT), problems)
    problems.check()
    made: Any = concrete.schema.model_validate(plain(concrete.settings))
    return made.plugin


def packed(section: Section) -> bytes:
    """The section's values."""
    return pickle.dumps(section.model_dump())


def unpacked(data: bytes, kind: str, name: str) -> PluginSection:
    """The section of a plugin again.

    Raises:
        ConfigError: a plugin is not there.
    """
    return section_of(kind, pickle.loads(data) | {"name": name})
