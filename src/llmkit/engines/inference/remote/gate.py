"""The door that requests go through: closed while servers are paused or get new weights."""

import asyncio
from collections.abc import Callable


class Gate:
    """Holds requests while it is closed, and knows how many are inside.

    Attributes:
        num_inside: requests that went through and have not left.
        num_waiting: requests that wait for it to open.
    """

    def __init__(self) -> None:
        self.num_inside = self.num_waiting = 0
        self._is_open = True
        self._changed: list[asyncio.Future[None]] = []

    @property
    def is_open(self) -> bool:
        """Whether requests go through."""
        return self._is_open

    async def enter(self) -> None:
        """Go through, when it is open; `leave` must follow."""
        self.num_waiting += 1
        try:
            await self._until(lambda: self._is_open)
        finally:
            self.num_waiting -= 1
        self.num_inside += 1

    def leave(self) -> None:
        """A request has ended."""
        self.num_inside -= 1
        self._tell()

    def open(self) -> None:
        """Let requests through."""
        self._is_open = True
        self._tell()

    def close(self) -> None:
        """Let no more requests through."""
        self._is_open = False

    async def empty(self) -> None:
        """Wait until nobody is inside."""
        await self._until(lambda: self.num_inside == 0)

    async def _until(self, holds: Callable[[], bool]) -> None:
        # Whoever wakes looks again: the door may have closed since it was told.
        while not holds():
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._changed.append(change)
            await change

    def _tell(self) -> None:
        changed, self._changed = self._changed, []
        for change in changed:
            if not change.done():
                change.set_result(None)
