"""Collect everything that is wrong with a configuration and say it in one error."""

import re
from dataclasses import dataclass, field

from llmkit.config.tree import KeyPath, Origin, dotted
from llmkit.errors import ConfigError

LAYERS = ("preset", "file", "environment", "option", "set", "default")
SECRET_NAME = re.compile(r"(^|[._])(key|token|secret|password|credentials?)$", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: the key; empty for the whole configuration.
        origin: where it was written; None when nobody wrote it.
        text: what is wrong, with the value and the way out.
        scope: nothing at or below this path is told any more.
    """

    path: KeyPath
    origin: Origin | None
    text: str
    scope: KeyPath

    @property
    def line(self) -> str:
        """The place, the key and what is wrong, in one line."""
        place = place_of(self.origin, self.path) if self.origin else ""
        key = dotted(self.path)
        typed = self.origin.place.removeprefix("--set ") if self.origin is not None else ""
        says_key = key in (typed, f"{typed}.name")
        parts = [place, "" if says_key else key, self.text]
        return ": ".join(part for part in parts if part).replace("\n", " ")

    @property
    def order(self) -> tuple[int, str, list[int]]:
        """Sorts by layer, file, line and column."""
        if self.origin is None:
            return len(LAYERS), "", []
        name, _, position = self.origin.place.partition(":")
        return LAYERS.index(self.origin.layer), name, [int(part) for part in re.findall(r"\d+", position)]


@dataclass
class Problems:
    """What was found so far. A key that has a problem is not told a second one, nor is anything below it."""

    found: list[Problem] = field(default_factory=list)

    def add(self, path: KeyPath, origin: Origin | None, text: str, scope: KeyPath | None = None) -> None:
        """Take note of a problem; `scope` silences more than what lies below `path`."""
        if not self.covers(path):
            self.found.append(Problem(path, origin, text, path if scope is None else scope))

    def covers(self, path: KeyPath) -> bool:
        """Whether something at this path, or above it, is wrong already."""
        return any(problem.scope == path[: len(problem.scope)] for problem in self.found)

    def check(self) -> None:
        """Raise all of them.

        Raises:
            ConfigError: there are some; one line each, in the order of layers and lines.
        """
        if self.found:
            raise ConfigError("\n".join(problem.line for problem in sorted(self.found, key=lambda one: one.order)))


def place_of(origin: Origin, path: KeyPath = ()) -> str:
    """A place as messages show it: `--set` with what was typed, unless a secret may be in it.

    Args:
        path: the key that is spoken of. What was typed for a whole section is left out when that is only a part of it.
    """
    typed = origin.place.removeprefix("--set ")
    if origin.layer != "set" or not origin.text or SECRET_NAME.search(typed):
        return origin.place
    is_part = dotted(path).startswith(f"{typed}.") and dotted(path) != f"{typed}.name"
    return origin.place if is_part else f"{origin.place}={origin.text}"
