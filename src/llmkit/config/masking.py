"""Which values of a run are secret, and how they are shown."""

from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from llmkit.config.section import Section
from llmkit.config.shape import is_secret, slot_at
from llmkit.config.tree import KeyPath

MASK = "********"
"""Shown in place of a secret."""


@dataclass(frozen=True)
class Masking:
    """The secrets of one run.

    Attributes:
        schema: the run's own schema, with its plugins in place.
        used: which keys the references of a key name: what is made of a secret is one.
    """

    schema: type[Section]
    used: Mapping[KeyPath, Set[KeyPath]]

    def hides(self, path: KeyPath) -> bool:
        """Whether the value at a path is not to be shown."""
        return path in self._tainted or self._is_secret(path)

    def masked(self, value: Any, path: KeyPath = ()) -> Any:
        """Plain values with a mask for each secret; null stays null."""
        if isinstance(value, dict):
            return {key: self.masked(child, (*path, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [self.masked(item, (*path, str(index))) for index, item in enumerate(value)]
        return MASK if value is not None and self.hides(path) else value

    @cached_property
    def _tainted(self) -> set[KeyPath]:
        """Keys whose references lead to a secret."""
        tainted: set[KeyPath] = set()
        while True:
            found = {
                path
                for path, targets in self.used.items()
                if any(target in tainted or self._is_secret(target) for target in targets)
            }
            if found == tainted:
                return tainted
            tainted = found

    def _is_secret(self, path: KeyPath) -> bool:
        slot = slot_at(self.schema, path)
        return slot is not None and is_secret(slot.annotation)
