"""Private characters that mark places in texts on their way through a chat template."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

Span = tuple[int, int]
"""Characters `[start, end)` of a rendering."""
PRIVATE = range(0x100000, 0x10FFFE)
"""Private-use characters; marks are taken out again before anything is tokenized."""


@dataclass(frozen=True)
class Marked:
    """A rendering and the marks that stood in it.

    Attributes:
        text: the rendering without marks.
        marks: for each mark, where it stood in `text`, in order.
    """

    text: str
    marks: dict[str, list[int]]


def unused_marks(texts: Iterable[str], count: int) -> str:
    """`count` different marks that none of the texts has."""
    used = set().union(*(text for text in texts if not text.isascii()))
    return "".join(islice((chr(code) for code in PRIVATE if chr(code) not in used), count))


def take_out(rendered: str, marks: str) -> Marked:
    """Remove marks from a rendering and tell where they stood."""
    places: dict[str, list[int]] = {mark: [] for mark in marks}
    pieces: list[str] = []
    position = 0
    for piece in re.split(f"([{marks}])", rendered):
        if piece in places:
            places[piece].append(position)
        else:
            pieces.append(piece)
            position += len(piece)
    return Marked("".join(pieces), places)
