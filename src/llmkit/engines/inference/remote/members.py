"""The servers of a fleet: which can be asked now, and which of them gets a request."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from llmkit.engines.inference.contract import EngineStats, GenerationRequest
from llmkit.engines.inference.remote.balancing import Balance
from llmkit.engines.inference.remote.contract import Fleet
from llmkit.engines.inference.remote.link import HttpLink
from llmkit.errors import EngineError

logger = logging.getLogger("llmkit.engines")


@dataclass(eq=False)
class Member:
    """One server, as the engine knows it.

    Attributes:
        link: to the server.
        num_starts: the start of the server's that `version` is about.
        version: of the weights that it was brought to.
        num_running: completions that it draws for this engine.
        num_missed: looks at it, one after another, that had no answer.
        trouble: why it is not asked; None while it is.
        is_paused: whether it was told to pause, and not to go on since.
        stats: what it last said of itself.
        looks: set to look at it at once.
    """

    link: HttpLink
    num_starts: int
    version: int
    num_running: int = 0
    num_missed: int = 0
    trouble: EngineError | None = None
    is_paused: bool = False
    stats: EngineStats = field(default_factory=EngineStats)
    looks: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def index(self) -> int:
        """Its place in the fleet."""
        return self.link.server.index


class Members:
    """All servers of one engine.

    Attributes:
        version: of the weights that a server must have to be asked.
        is_held: whether a server that comes back paused is to stay so.
    """

    def __init__(self, fleet: Fleet, links: Sequence[HttpLink], version: int) -> None:
        self.version = version
        self.is_held = False
        self._fleet = fleet
        self._balance = Balance()
        self._all = [Member(link, fleet.num_starts(link.server.index), version) for link in links]
        self._changed = asyncio.Event()

    @property
    def all(self) -> Sequence[Member]:
        """Every one, asked or not."""
        return self._all

    @property
    def ready(self) -> list[Member]:
        """Those that can be asked."""
        return [member for member in self._all if member.trouble is None and self.is_current(member)]

    def is_current(self, member: Member) -> bool:
        """Whether it has the weights that it must have: the right ones, and no start came in between."""
        return member.version == self.version and self.num_starts(member) == member.num_starts

    def num_starts(self, member: Member) -> int:
        """How often it has been started."""
        return self._fleet.num_starts(member.index)

    def choose(self, request: GenerationRequest, busy: set[int]) -> Member | None:
        """Who gets a request; None when there is nobody.

        Args:
            busy: servers that have refused it as too busy.
        """
        ready = {member.index: member for member in self.ready if member.index not in busy}
        if not ready:
            return None
        salt = f"{request.adapter or ''}\0{request.cache_salt}"
        loads = {index: member.num_running for index, member in ready.items()}
        return ready[self._balance.choose(request.prompt_ids, salt, loads)]

    def lose(self, member: Member, error: EngineError) -> None:
        """A server has failed: it is asked again when a look at it finds it well."""
        if member.trouble is None:
            logger.warning("%s; it is not asked until it is well again", error)
        member.trouble = error
        member.looks.set()

    def regain(self, member: Member) -> None:
        """A server is well, with the right weights."""
        member.trouble, member.num_missed = None, 0
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def some_ready(self, seconds: float) -> None:
        """Wait until a server can be asked.

        Raises:
            EngineError: all are gone, or none came back in time; with what is known of each.
        """
        end = asyncio.get_running_loop().time() + seconds
        while not self.ready:
            gone = [self._fleet.failure(member.index) for member in self._all]
            if all(gone):
                raise EngineError(f"all servers are gone: {'; '.join(map(str, gone))}")
            for member in self._all:
                member.looks.set()
            left = end - asyncio.get_running_loop().time()
            if left <= 0:
                raise EngineError(f"no server could be asked for {seconds:g} seconds: {'; '.join(self._reasons())}")
            try:
                # A server that is gone for good tells nobody: look again now and then.
                async with asyncio.timeout(min(left, 0.5)):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _reasons(self) -> list[str]:
        reasons = []
        for member in self._all:
            gone = self._fleet.failure(member.index)
            waits = f"{member.link.server.url}: it has been started again and waits for its weights"
            reasons.append(gone or (waits if member.trouble is None else str(member.trouble)))
        return reasons
