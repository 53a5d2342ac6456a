"""The rewards that a run's reward section asks for: one, or several with weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

from llmkit import plugins
from llmkit.config.section import PluginSection
from llmkit.config.sending import packed
from llmkit.rollout.contract import Reward
from llmkit.types import Rollout


@dataclass(frozen=True)
class Part:
    """One reward.

    Attributes:
        name: by which its values are kept.
        plugin: the reward plugin.
        config: of the plugin.
        weight: its share of the whole.
    """

    name: str
    plugin: str
    config: Any
    weight: float = 1.0

    @cached_property
    def front(self) -> Any:
        """The plugin's front, looked up once: every rollout asks it."""
        return plugins.load("rewards", self.plugin)

    @property
    def is_in_process(self) -> bool:
        """Whether it is called in the run's own process."""
        return bool(getattr(self.front, "IN_PROCESS", False))

    @property
    def quick(self) -> Callable[[Any, Rollout], float | None] | None:
        """What may know the reward without a child process."""
        return getattr(self.front, "quick", None)

    def build(self) -> Reward:
        """Make the reward."""
        return self.front.build(self.config)


@dataclass(frozen=True)
class Parts:
    """What a reward is made of.

    Attributes:
        rewards: one or more, with names of their own.
        normalize: standardize each within its group before they are added.
    """

    rewards: Sequence[Part]
    normalize: bool = False


@runtime_checkable
class Combination(Protocol):
    """The front of a reward plugin that is made of others."""

    def parts(self, config: Any) -> Parts:
        """What it is made of."""
        ...


def parts_of(section: PluginSection) -> Parts:
    """The rewards behind a reward section.

    Raises:
        PluginError: a plugin is not there or cannot be imported.
    """
    front = plugins.load("rewards", section.name)
    if isinstance(front, Combination):
        return front.parts(section)
    return Parts([Part(section.name.rpartition(":")[2], section.name, section)])


def packed_parts(parts: Sequence[Part]) -> list[tuple[str, str, bytes]]:
    """Parts for a child process: name, plugin, packed config."""
    return [(part.name, part.plugin, packed(part.config)) for part in parts]
