"""Looks at servers all the time: notices those that died or hang, and brings back those that are well again."""

import asyncio
import logging
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

from llmkit.engines.inference.remote.contract import Dialect, WeightSync
from llmkit.engines.inference.remote.members import Member, Members
from llmkit.errors import EngineError

T = TypeVar("T")
logger = logging.getLogger("llmkit.engines")

LEAST_LOOK_SECONDS = 1.0
"""How long a look may take at least, and beyond this twice the time between two."""
MOST_MISSED = 3
"""Looks without an answer after which a server counts as hanging."""
QUICK_SECONDS = 0.5
"""Between two looks at a server in trouble."""


class Watch:
    """Owns the state of servers between requests: what they draw with, and whether they answer.

    Attributes:
        lock: held while a server's weights change, so that no update meets a return.
        adapters: those that every server must have, with their directories.
    """

    def __init__(self, members: Members, dialect: Dialect, sync: WeightSync | None, health_seconds: float) -> None:
        self.lock = asyncio.Lock()
        self.adapters: dict[str, Path] = {}
        self._members = members
        self._dialect = dialect
        self._sync = sync
        self._health_seconds = health_seconds
        self._look_seconds = max(LEAST_LOOK_SECONDS, 2 * health_seconds)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look, if that has not begun."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._watch(member)) for member in self._members.all]

    async def stop(self) -> None:
        """Look no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def answers(self, member: Member) -> bool:
        """Whether a server answers now."""
        try:
            await self._facts(member)
        except EngineError as error:
            self._members.lose(member, error)
            return False
        return True

    async def load_adapter(self, name: str, path: Path) -> None:
        """Load an adapter on all servers that answer, and on the others when they are back; on all or on none.

        Raises:
            EngineError: a server cannot.
        """
        async with self.lock:
            done: list[Member] = []
            try:
                for member in self._members.ready:
                    await self._dialect.load_adapter(member.link, name, path, replace=False)
                    done.append(member)
            except BaseException:
                for member in done:
                    await self._dialect.unload_adapter(member.link, name)
                raise
            self.adapters[name] = path

    async def unload_adapter(self, name: str) -> None:
        """Unload an adapter from all servers that answer."""
        async with self.lock:
            del self.adapters[name]
            for member in self._members.ready:
                await self._dialect.unload_adapter(member.link, name)

    async def _watch(self, member: Member) -> None:
        while True:
            is_well = member.trouble is None and member.num_missed == 0 and self._members.is_current(member)
            try:
                async with asyncio.timeout(self._health_seconds if is_well else QUICK_SECONDS):
                    await member.looks.wait()
            except TimeoutError:
                pass
            else:
                # Many requests may ask for a look at once; between two there is always some time.
                await asyncio.sleep(QUICK_SECONDS / 10)
            member.looks.clear()
            try:
                await self._look(member)
            except EngineError as error:
                self._miss(member, error)
            except Exception as error:
                # A look that breaks must not be the last one; whoever waits for the server is told what it was.
                logger.exception("looking at %s failed", member.link.server.url)
                self._miss(member, EngineError(f"{member.link.server.url}: {type(error).__name__}: {error}"))

    async def _look(self, member: Member) -> None:
        await self._facts(member)
        member.num_missed = 0
        if member.trouble is not None or not self._members.is_current(member):
            async with self.lock:
                await self._bring_back(member)
        member.stats = await self._soon(member, self._dialect.stats(member.link))

    async def _facts(self, member: Member) -> None:
        await self._soon(member, self._dialect.facts(member.link))

    async def _soon(self, member: Member, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._look_seconds):
                return await answer
        except TimeoutError:
            url = member.link.server.url
            raise EngineError(f"{url}: asking how it is: no answer within {self._look_seconds:g} seconds") from None

    async def _bring_back(self, member: Member) -> None:
        """Give a server everything that it needs to be asked again.

        Raises:
            EngineError: it failed meanwhile.
        """
        num_starts, version = self._members.num_starts(member), self._members.version
        is_new = num_starts != member.num_starts
        if self._sync is not None and (is_new or member.version != version):
            await self._sync.restore(member.link)
        if is_new:
            for name, path in self.adapters.items():
                await self._dialect.load_adapter(member.link, name, path, replace=True)
            member.is_paused = False
        elif member.is_paused and not self._members.is_held:
            await self._dialect.resume(member.link)
            member.is_paused = False
        member.num_starts, member.version = num_starts, version
        if member.trouble is not None or is_new:
            logger.info("%s: it is asked again", member.link.server.url)
        self._members.regain(member)

    def _miss(self, member: Member, error: EngineError) -> None:
        member.num_missed += 1
        if member.trouble is not None or not self._members.is_current(member):
            member.trouble = error
        elif member.num_missed >= MOST_MISSED:
            self._members.lose(member, error)
            member.looks.clear()
            member.link.cut(error)
