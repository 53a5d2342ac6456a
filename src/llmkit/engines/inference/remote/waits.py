"""Waits that have a deadline and can all be cut short."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from llmkit.errors import EngineError


class Waits:
    """What waits for one thing, such as a server.

    Work that waits several times, like reading a stream, takes a `turn` first: a cut that comes while it does something
    else still ends it, at its next wait.
    """

    def __init__(self) -> None:
        self._waits: set[asyncio.Timeout] = set()
        self._num_cuts = 0
        self._error = EngineError("cut short")

    @property
    def turn(self) -> int:
        """For `within`: which cuts have been."""
        return self._num_cuts

    def cut(self, error: EngineError) -> None:
        """Let everything that waits, or has taken a turn, raise an error."""
        self._num_cuts += 1
        self._error = error
        now = asyncio.get_running_loop().time()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(now)

    @asynccontextmanager
    async def within(self, seconds: float | None, late: EngineError, turn: int | None = None) -> AsyncGenerator[None]:
        """A wait.

        Args:
            seconds: most that it may take; None for no limit.
            late: raised when it takes longer.
            turn: since when a cut ends it; None for now.
        Raises:
            EngineError: it was too long, or cut.
        """
        turn = self._num_cuts if turn is None else turn
        if turn != self._num_cuts:
            raise self._error
        wait = asyncio.timeout(seconds)
        try:
            async with wait:
                self._waits.add(wait)
                yield
        except TimeoutError:
            raise (self._error if turn != self._num_cuts else late) from None
        finally:
            self._waits.discard(wait)
