"""Thoughts before the answer: `<think> ... </think>`."""

from typing import Literal

from llmkit.data.chat.parsing.pieces import Parser, Piece, held_back

OPEN, CLOSE = "<think>", "</think>"


class Thinking:
    """Takes out the thoughts; what comes after them goes to another parser."""

    def __init__(self, answer: Parser, *, begun: bool) -> None:
        """Take the parser for the answer, and whether the prompt itself ended with `<think>`."""
        self._answer = answer
        self._state: Literal["before", "inside", "after"] = "inside" if begun else "before"
        self._pending = ""
        self._strip = True

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        self._pending += text
        piece = Piece()
        if self._state == "before":
            self._begin()
        if self._state == "inside":
            self._think(piece)
        if self._state == "after":
            self._go_on(piece)
        return piece

    def finish(self) -> Piece:
        """See `Parser`."""
        piece = Piece()
        if self._state == "inside":
            piece.reasoning = self._pending
        else:
            pushed = self._answer.push(self._pending)
            last = self._answer.finish()
            piece.content, piece.calls = pushed.content + last.content, pushed.calls + last.calls
        self._pending = ""
        return piece

    def _begin(self) -> None:
        start = self._pending.lstrip()
        if start.startswith(OPEN):
            self._pending = start.removeprefix(OPEN)
            self._state = "inside"
        elif not OPEN.startswith(start):
            self._state, self._strip = "after", False

    def _think(self, piece: Piece) -> None:
        if self._strip:
            self._pending = self._pending.lstrip("\n")
            self._strip = not self._pending
        end = self._pending.find(CLOSE)
        if end >= 0:
            piece.reasoning = self._pending[:end]
            self._pending = self._pending[end + len(CLOSE) :]
            self._state, self._strip = "after", True
            return
        kept = held_back(self._pending, CLOSE)
        piece.reasoning = self._pending[: len(self._pending) - kept]
        self._pending = self._pending[len(self._pending) - kept :]

    def _go_on(self, piece: Piece) -> None:
        text = self._pending.lstrip("\n") if self._strip else self._pending
        self._pending = ""
        if text:
            self._strip = False
            answer = self._answer.push(text)
            piece.content, piece.calls = answer.content, answer.calls
