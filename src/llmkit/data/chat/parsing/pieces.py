"""What the text of an answer is made of: thoughts, content, and calls of tools."""

from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What is added to a call.

    Attributes:
        index: which call of the answer, from 0.
        name: of the tool, in the call's first delta.
        arguments: JSON text that goes on from the delta before.
    """

    index: int
    name: str | None = None
    arguments: str = ""


@dataclass(slots=True)
class Piece:
    """What some text adds to an answer."""

    reasoning: str = ""
    content: str = ""
    calls: list[CallDelta] = field(default_factory=list[CallDelta])

    def __bool__(self) -> bool:
        return bool(self.reasoning or self.content or self.calls)


class Parser(Protocol):
    """Divides the text of one answer while it comes."""

    def push(self, text: str) -> Piece:
        """Take the next text; what may be the start of a marker is held back."""
        ...

    def finish(self) -> Piece:
        """What was held back."""
        ...


class PlainText:
    """Everything is content."""

    def push(self, text: str) -> Piece:
        """The text."""
        return Piece(content=text)

    def finish(self) -> Piece:
        """Nothing."""
        return Piece()


def held_back(text: str, marker: str) -> int:
    """Length of the longest end of `text` that `marker` begins with, the whole marker excepted."""
    for size in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-size:]):
            return size
    return 0
