"""The body of an answer as it comes, with a deadline on every wait for more of it."""

import asyncio
from collections.abc import Callable

from aiohttp import ClientError, ClientResponse

from llmkit.errors import EngineError


class Pieces:
    """Reads one body.

    One timer looks now and then how long the present wait has lasted: a timer for each of thousands of pieces a second
    would cost as much as reading them.
    """

    def __init__(self, response: ClientResponse, seconds: float, failed: Callable[[str], EngineError]) -> None:
        """
        Args:
            seconds: most that one wait may take; what is done between two waits does not count.
            failed: makes an error of what went wrong.
        """
        self._content = response.content
        self._seconds = seconds
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._waiting_since: float | None = None
        self._timer = self._loop.call_later(seconds, self._look)

    async def next(self) -> bytes:
        """The next piece; empty at the end.

        Raises:
            EngineError: it took too long, was cut short, or the connection failed.
        """
        self._waiting_since = self._loop.time()
        try:
            return await self._content.readany()
        except (ClientError, OSError) as error:
            raise self._failed(str(error) or type(error).__name__) from error
        finally:
            self._waiting_since = None

    def cut(self, error: EngineError) -> None:
        """Let the present wait, or else the next one, raise an error."""
        self._content.set_exception(error)

    def close(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        waited = 0.0 if self._waiting_since is None else self._loop.time() - self._waiting_since
        if waited < self._seconds:
            self._timer = self._loop.call_later(self._seconds - waited, self._look)
        else:
            self.cut(self._failed(f"no answer within {self._seconds:g} seconds"))
