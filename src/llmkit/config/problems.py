"""Collect everything that is wrong with a configuration and say it in one error."""

import re
from dataclasses import dataclass, field

from llmkit.config.tree import KeyPath, Origin, dotted
from llmkit.errors import ConfigError

LAYERS = ("preset", "file", "environment", "option", "set", "default")
SECRET_NAME = re.compile(r"key|token|secret|password|credential", re.IGNORECASE)


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        path: the key; empty for the whole configuration.
        origin: where it was written; None when nobody wrote it.
        text: what is wrong, with the value and the way out.
    """

    path: KeyPath
    origin: Origin | None
    text: str

    @property
    def line(self) -> str:
        """The place, the key and what is wrong, in one line."""
        place = place_of(self.origin, self.path) if self.origin else ""
        key = dotted(self.path)
        says_key = self.origin is not None and self.origin.layer == "set" and self.origin.place == f"--set {key}"
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

    def add(self, path: KeyPath, origin: Origin | None, text: str) -> None:
        """Take note of a problem."""
        if not self.covers(path):
            self.found.append(Problem(path, origin, text))

    def covers(self, path: KeyPath) -> bool:
        """Whether something at this path, or above it, is wrong already."""
        return any(problem.path == path[: len(problem.path)] for problem in self.found)

    def check(self) -> None:
        """Raise all of them.

        Raises:
            ConfigError: there are some; one line each, in the order of layers and lines.
        """
        if self.found:
            raise ConfigError("\n".join(problem.line for problem in sorted(self.found, key=lambda one: one.order)))


def place_of(origin: Origin, path: KeyPath = ()) -> str:
    """A place as messages show it: `--set` with what was typed, unless that may be a secret."""
    if origin.layer != "set" or not origin.text or SECRET_NAME.search(origin.place) or looks_secret(path):
        return origin.place
    return f"{origin.place}={origin.text}"


def looks_secret(path: KeyPath) -> bool:
    """Whether a key's name suggests that its value is not for everybody's eyes."""
    return bool(path) and SECRET_NAME.search(path[-1]) is not None
