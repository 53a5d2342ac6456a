"""Rows that are not trained on as they are, grouped by what is wrong with them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

NUM_PLACES = 5
MAX_GROUPS = 200
ORDER = ("faulty", "dropped", "untrained", "truncated", "split")
PLACE = re.compile(r"^(?P<place>.*?:\d+(?::\d+)?): (?P<reason>.*)$", re.DOTALL)
PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\d[\d,.]*")
"""What differs between messages that tell of the same fault: quoted values, and numbers."""


@dataclass
class Group:
    """Rows with the same fault or the same fate.

    Attributes:
        outcome: `faulty`, `dropped`, `untrained`, `truncated` or `split`.
        reason: what was said of the first of them.
        count: how many.
        places: of the first ones.
    """

    outcome: str
    reason: str
    count: int = 0
    places: list[str] = field(default_factory=list)


class Groups:
    """Counts every row, remembers a few places of each kind."""

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str], Group] = {}

    def __iter__(self) -> Iterator[Group]:
        """Groups, the largest first within one outcome."""
        return iter(sorted(self._groups.values(), key=lambda group: (ORDER.index(group.outcome), -group.count)))

    def add_fault(self, message: str) -> None:
        """Count a faulty row by its error, which begins with the row's place."""
        place, reason = split_place(message)
        self.add("faulty", reason, place)

    def add(self, outcome: str, reason: str, place: str) -> None:
        """Count a row."""
        key = (outcome, PARTICULARS.sub("#", reason))
        if key not in self._groups and len(self._groups) >= MAX_GROUPS:
            key, reason = (outcome, ""), "other reasons"
        group = self._groups.setdefault(key, Group(outcome, reason))
        group.count += 1
        if len(group.places) < NUM_PLACES and place:
            group.places.append(place)


def split_place(message: str) -> tuple[str, str]:
    """The place that an error begins with, and what it says; no place when it names none."""
    found = PLACE.match(message)
    return (found["place"], found["reason"]) if found else ("", message)
