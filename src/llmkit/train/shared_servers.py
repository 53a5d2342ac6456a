"""Servers that the first process of a run starts and all of its processes ask.

The first process brings them the weights. It tells the others how each server stands, so that none of them asks one
that was started again before it has its weights back.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from llmkit.config.serving import is_loopback
from llmkit.distributed.notices import leave_notice, read_notice
from llmkit.distributed.world import world
from llmkit.engines.inference.contract import EngineContext, InferenceEngine
from llmkit.engines.inference.remote.contract import FleetEngine, Link, Server, SharedServers
from llmkit.engines.servers.fronts import program_of
from llmkit.errors import ConfigError, EngineError

logger = logging.getLogger("llmkit.train")

NOTICE = "servers"
TELL_SECONDS = 0.2
"""Between two looks for news; a server takes seconds to start, so that nobody misses that it did."""
WAIT_SECONDS = 120.0
"""How long a process waits for a server's weights that the first one is about to bring."""


class Announcer:
    """Tells the other processes how the servers of this one stand, while it is open."""

    def __init__(self, engine: FleetEngine) -> None:
        self._engine = engine
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._told: Any = None
        self._thread = threading.Thread(target=self._run, name="servers", daemon=True)

    def tell(self) -> None:
        """Tell how they stand now, if that is news."""
        with self._lock:
            news = standings(self._engine)
            if news != self._told:
                leave_notice(NOTICE, news)
                self._told = news

    def __enter__(self) -> Self:
        self.tell()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(TELL_SECONDS):
            try:
                self.tell()
            except RuntimeError as error:
                # The other processes, or whoever started them, are gone; the next collective ends the run.
                logger.warning("the other processes are no longer told how servers stand: %s", error)
                return


def standings(engine: FleetEngine) -> dict[str, Any]:
    """How the servers of an engine stand, for a notice."""
    fleet = engine.fleet
    return {
        "adapter": engine.policy_adapter,
        "servers": [
            {"num_starts": fleet.num_starts(server.index), "failure": fleet.failure(server.index), "current": current}
            for server, current in zip(fleet.servers, engine.current_starts(), strict=True)
        ],
    }


class AnnouncedFleet:
    """The servers as the first process tells of them; see `Fleet`."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)
        self._read_at = float("-inf")
        self._notice: Any = None

    @property
    def servers(self) -> Sequence[Server]:
        """All of them."""
        return self._servers

    def num_starts(self, index: int) -> int:
        """How often one has been started."""
        return self.notice()["servers"][index]["num_starts"]

    def failure(self, index: int) -> str | None:
        """Why one is gone for good."""
        return self.notice()["servers"][index]["failure"]

    def is_current(self, index: int) -> bool:
        """Whether one draws with the present weights."""
        standing = self.notice()["servers"][index]
        return standing["current"] == standing["num_starts"]

    def close(self) -> None:
        """They are the first process's to stop."""

    def notice(self, *, now: bool = False) -> Any:
        """What was told last.

        Args:
            now: read it again, however short ago that was.
        """
        if now or time.monotonic() - self._read_at > TELL_SECONDS:
            self._notice, self._read_at = read_notice(NOTICE), time.monotonic()
        return self._notice


class AwaitedSync:
    """Stands for the weight sync of the first process; see `WeightSync`. It sends nothing."""

    def __init__(self, fleet: AnnouncedFleet) -> None:
        self._fleet = fleet

    @property
    def adapter(self) -> str | None:
        """The adapter that is the policy on the servers."""
        return self._fleet.notice()["adapter"]

    async def update(self, links: Sequence[Link], version: int) -> None:
        """Make sure that the servers have the weights that the first process has brought.

        Raises:
            EngineError: one of them lacks them, and does not get them in time.
        """
        self._fleet.notice(now=True)
        end = time.monotonic() + WAIT_SECONDS
        while missing := [link.server for link in links if not self._fleet.is_current(link.server.index)]:
            if time.monotonic() > end:
                raise EngineError(
                    f"sending weights: {', '.join(server.url for server in missing)} did not get version {version} "
                    f"from the first process within {WAIT_SECONDS:g} seconds"
                )
            await asyncio.sleep(TELL_SECONDS)

    async def verify(self, links: Sequence[Link], version: int) -> None:
        """The first process compares."""

    async def restore(self, link: Link) -> None:
        """See whether the first process has brought a server its weights again.

        Raises:
            EngineError: not yet.
        """
        if not self._fleet.is_current(link.server.index):
            raise EngineError(f"{link.server.url}: waits for its weights from the first process")

    def close(self) -> None:
        """There is nothing of its own."""


@dataclass(frozen=True)
class Delivery:
    """New weights for servers that several processes ask.

    Attributes:
        engine: of this process.
        announcer: of the first process; None in the others.
    """

    engine: InferenceEngine
    announcer: Announcer | None

    async def load_weights(self, version: int) -> None:
        """Bring them once, then let every process know; none goes on before all do.

        Raises:
            EngineError: it failed in one of the processes.
        """
        together = world()
        async with together.agreeing_aside():
            if self.announcer is not None:
                await self.engine.load_weights(version)
                self.announcer.tell()
        async with together.agreeing_aside():
            if self.announcer is None:
                await self.engine.load_weights(version)


def check_reach(servers: Sequence[Server]) -> None:
    """Refuse servers that only the processes on the first one's machine could ask.

    Raises:
        ConfigError: there are processes on other machines.
    """
    place = world().place
    near = [server.url for server in servers if is_loopback(urlsplit(server.url).hostname or "")]
    if near and place.local_world_size < place.world_size:
        raise ConfigError(
            f"the run's processes are on several machines, and {near[0]} can be asked on one of them alone: start the "
            "servers beforehand where all machines reach them, and name them with engine.urls"
        )


Load = Callable[[int], Awaitable[None]]


@contextmanager
def open_engine(
    front: Any, config: Any, context: EngineContext, loop: asyncio.Runner
) -> Iterator[tuple[InferenceEngine, Load]]:
    """Start an engine, with what gives it new weights, and close it however the block ends.

    Where several processes train, the first one starts the servers of an engine that has some.

    Args:
        front: of the engine's plugin.
        loop: runs the engine.
    """
    with ExitStack() as stack:

        def start(context: EngineContext) -> Any:
            engine = front.build(config, context)
            stack.callback(lambda: loop.run(engine.close()))
            return engine

        together = world()
        if together.size == 1 or program_of(front) is None:
            engine = start(context)
            yield engine, engine.load_weights
            return
        engine: Any = None
        with together.agreeing():
            if together.is_main:
                engine = start(context)
        # The first notice is there before anybody can look for it.
        announcer = stack.enter_context(Announcer(engine)) if together.is_main else None
        servers: Sequence[Server] = together.broadcast(engine.fleet.servers if together.is_main else ())
        check_reach(servers)
        with together.agreeing():
            if not together.is_main:
                fleet = AnnouncedFleet(servers)
                engine = start(replace(context, shared=SharedServers(fleet, AwaitedSync(fleet))))
        yield engine, Delivery(engine, announcer).load_weights
