"""Build the trackers of a run: those that every run has, and those that were asked for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmkit import plugins
from llmkit.config.section import PluginSection, Section
from llmkit.errors import ConfigError
from llmkit.trackers.contract import Tracker

ALWAYS = ("jsonl", "console")


@dataclass
class NamedTracker:
    """A tracker with its name and how often it failed."""

    name: str
    tracker: Tracker
    num_failures: int = 0


def build_trackers(
    sections: Sequence[PluginSection], run_dir: Path, resolved: Mapping[str, Any], *, resumed: bool
) -> list[NamedTracker]:
    """`jsonl` and `console`, with the settings of `sections` if those name them, then the others in order.

    Raises:
        ConfigError: a tracker is named twice.
        PluginError: a tracker is not installed or cannot start; those built before it are closed.
    """
    chosen: dict[str, Section] = {}
    for section in sections:
        if section.name in chosen:
            raise ConfigError(f"trackers: {section.name!r} is named twice; each tracker runs once")
        chosen[section.name] = section
    built: list[NamedTracker] = []
    try:
        for name in dict.fromkeys([*ALWAYS, *chosen]):
            plugin = plugins.load("trackers", name)
            config = chosen[name] if name in chosen else plugin.Config()
            built.append(NamedTracker(name, plugin.build(config, run_dir, resolved, resumed)))
    except BaseException:
        for former in built:
            former.tracker.close()
        raise
    return built
