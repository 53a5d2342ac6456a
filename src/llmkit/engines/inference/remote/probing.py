"""The first look at servers, before there is an event loop to ask them from."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llmkit.engines.inference.remote.contract import Dialect, Fleet, Link, ServerFacts
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.link import HttpClient, HttpLink
from llmkit.errors import EngineError

T = TypeVar("T")
PAUSE_SECONDS = 0.5
"""Between two attempts."""


def first_facts(fleet: Fleet, dialect: Dialect, deadlines: Deadlines) -> list[ServerFacts]:
    """What servers say of themselves, of those that answer.

    Raises:
        EngineError: none does, with the reasons of all.
    """
    return ask_servers(fleet, dialect.facts, deadlines)


def ask_servers(fleet: Fleet, ask: Callable[[Link], Awaitable[T]], deadlines: Deadlines) -> list[T]:
    """The answers of all servers that give one, from code that runs in an event loop or in none.

    Raises:
        EngineError: none does within `recovery_seconds`, with the reasons of all.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="first-look") as thread:
        return thread.submit(lambda: asyncio.run(_answers(fleet, ask, deadlines))).result()


async def _answers(fleet: Fleet, ask: Callable[[Link], Awaitable[T]], deadlines: Deadlines) -> list[T]:
    client = HttpClient(deadlines)
    links = [HttpLink(server, client) for server in fleet.servers]
    loop = asyncio.get_running_loop()
    end = loop.time() + deadlines.recovery_seconds
    try:
        while True:
            found = await asyncio.gather(*map(ask, links), return_exceptions=True)
            answers = [one for one in found if not isinstance(one, BaseException)]
            if answers:
                return answers
            for one in found:
                if not isinstance(one, EngineError):
                    raise one  # type: ignore[misc] - no answer is among them
            gone = all(fleet.failure(server.index) for server in fleet.servers)
            if gone or loop.time() >= end:
                raise EngineError(f"no server answers: {'; '.join(map(str, found))}")
            await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await client.close()
