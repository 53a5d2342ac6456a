"""Stop strings in text that comes in pieces."""

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the first stop string, and holds back what may be the beginning of one.

    The stop string that is complete first ends the text, of those complete at the same character the longest; how the
    text was cut into pieces makes no difference.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(dict.fromkeys(stop))
        self._longest = max(map(len, self._stop), default=0)
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str, *, counts: bool = True) -> str:
        """Take the next piece; returns what can be shown now.

        Args:
            text: what follows the text so far; ignored after a match.
            counts: off lets stop strings that are complete within this piece through.
        """
        if self.matched is not None:
            return ""
        if not self._stop:
            return text
        seen = len(self._held)
        buffer = self._held + text
        found = self._first(buffer, seen) if counts else None
        if found is not None:
            start, self.matched = found
            self._held = ""
            return buffer[:start]
        shown = len(buffer) - self._num_held(buffer)
        self._held = buffer[shown:]
        return buffer[:shown]

    def would_match(self, text: str) -> bool:
        """Whether a piece, which is not taken, would end the text."""
        return self._first(self._held + text, len(self._held)) is not None

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _first(self, buffer: str, seen: int) -> tuple[int, str] | None:
        """Start and stop string of the match that ends first, behind the first `seen` characters."""
        best: tuple[int, int, str] | None = None
        for stop in self._stop:
            at = buffer.find(stop, max(0, seen - len(stop) + 1))
            if at >= 0 and (best is None or (at + len(stop), at) < best[:2]):
                best = (at + len(stop), at, stop)
        return best[1:] if best is not None else None

    def _num_held(self, buffer: str) -> int:
        """Length of the longest end of the text that a stop string begins with."""
        for start in range(max(0, len(buffer) - self._longest + 1), len(buffer)):
            tail = buffer[start:]
            if any(stop.startswith(tail) for stop in self._stop):
                return len(tail)
        return 0
