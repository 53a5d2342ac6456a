"""Servers as processes of their own, that tests kill, stop and start again."""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit.engines.inference.contract import Delta, PauseMode
from llmkit.engines.inference.remote.contract import Link, Server
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.engine import RemoteEngine
from llmkit.engines.inference.remote.openai_dialect import OpenAIDialect

SCRIPT = Path(__file__).parent / "scripted_server.py"
START_SECONDS = 30
QUICK = Deadlines(
    connect_seconds=2,
    answer_seconds=5,
    idle_seconds=2,
    request_seconds=30,
    recovery_seconds=10,
    health_seconds=0.1,
)


class ScriptedServer:
    """One server process; it keeps its port when it is started again."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.is_unharmed = True

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(SCRIPT), str(self.port)])
        end = time.monotonic() + START_SECONDS
        while True:
            try:
                self.ask()
                return
            except OSError:
                assert self.process.poll() is None, "the scripted server did not start"
                assert time.monotonic() < end, "the scripted server does not answer"
                time.sleep(0.02)

    def kill(self) -> None:
        self.is_unharmed = False
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()

    def freeze(self) -> None:
        """It answers nothing any more, and closes nothing."""
        assert self.process is not None
        self.is_unharmed = False
        os.kill(self.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def ask(self) -> dict[str, Any]:
        """What it saw."""
        with urllib.request.urlopen(f"{self.url}/script", timeout=5) as answer:
            return json.load(answer)

    def set(self, **settings: Any) -> None:
        data = json.dumps(settings).encode()
        request = urllib.request.Request(f"{self.url}/script", data, {"content-type": "application/json"})
        urllib.request.urlopen(request, timeout=5).close()


class ScriptedFleet:
    """The processes as a fleet; tests say when one was started again or is gone."""

    def __init__(self, processes: list[ScriptedServer]) -> None:
        self.servers = [Server(index, one.url, "m") for index, one in enumerate(processes)]
        self.starts = [1] * len(processes)
        self.failures: list[str | None] = [None] * len(processes)
        self.num_closes = 0

    def num_starts(self, index: int) -> int:
        return self.starts[index]

    def failure(self, index: int) -> str | None:
        return self.failures[index]

    def close(self) -> None:
        self.num_closes += 1


class PausingDialect(OpenAIDialect):
    """With the routes for pausing and adapters that the scripted server has."""

    async def pause(self, link: Link, mode: PauseMode) -> None:
        await link.call("/pause", phase="pausing", params={"mode": mode})

    async def resume(self, link: Link) -> None:
        await link.call("/resume", phase="resuming")

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        await link.call("/v1/load_lora_adapter", {"lora_name": name}, phase="loading")

    async def unload_adapter(self, link: Link, name: str) -> None:
        await link.call("/v1/unload_lora_adapter", {"lora_name": name}, phase="unloading")


class RecordedSync:
    """Sets the number that stands for a server's weights."""

    def __init__(self, processes: list[ScriptedServer]) -> None:
        self.processes = processes
        self.adapter: str | None = None
        self.calls: list[tuple[str, int, list[int]]] = []
        self.error: Exception | None = None
        self.last = 0

    async def update(self, links: list[Link], version: int) -> None:
        self.calls.append(("update", version, [link.server.index for link in links]))
        if self.error is not None:
            raise self.error
        for link in links:
            await link.call("/script", {"weights": version}, phase="sending weights")
        self.last = version

    async def verify(self, links: list[Link], version: int) -> None:
        self.calls.append(("verify", version, [link.server.index for link in links]))

    async def restore(self, link: Link) -> None:
        self.calls.append(("restore", self.last, [link.server.index]))
        await link.call("/script", {"weights": self.last}, phase="sending weights")

    def close(self) -> None:
        self.calls.append(("close", self.last, []))


@pytest.fixture(scope="session")
def pool() -> Iterator[list[ScriptedServer]]:
    """Servers that tests have used and left alive: starting one takes a second."""
    found: list[ScriptedServer] = []
    yield found
    for server in found:
        server.kill()


@pytest.fixture
def servers(pool: list[ScriptedServer]) -> Iterator[Callable[[int], list[ScriptedServer]]]:
    """Gives as many as wanted, which know nothing of earlier tests."""
    taken: list[ScriptedServer] = []

    def take(count: int) -> list[ScriptedServer]:
        while len(pool) < count:
            server = ScriptedServer()
            server.start()
            pool.append(server)
        found = [pool.pop() for _ in range(count)]
        taken.extend(found)
        return found

    yield take
    for server in taken:
        if server.is_unharmed:
            server.set(reset=True)
            pool.append(server)
        else:
            server.kill()


Story = Callable[[RemoteEngine], Awaitable[None]]


def tell(
    processes: list[ScriptedServer],
    story: Story,
    *,
    fleet: ScriptedFleet | None = None,
    deadlines: Deadlines = QUICK,
    **options: Any,
) -> None:
    """Build an engine over servers, tell a story with it, close it; nothing may hang."""
    engine = RemoteEngine(
        fleet or ScriptedFleet(processes), options.pop("dialect", PausingDialect()), deadlines=deadlines, **options
    )

    async def whole() -> None:
        try:
            await story(engine)
        finally:
            await engine.close()

    asyncio.run(asyncio.wait_for(whole(), 60))


async def until(holds: Callable[[], bool]) -> None:
    """Wait for something to become true."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


def ids_of(deltas: list[Delta]) -> list[int]:
    """The tokens of all of them, in order."""
    return [token for delta in deltas for token in delta.token_ids]


async def all_of(deltas: AsyncGenerator[Any]) -> list[Any]:
    return [delta async for delta in deltas]
