"""From the engine's thread back to the event loops that wait."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llmkit.engines.inference.contract import Delta
from llmkit.engines.inference.native.sequences import Deliver, Request


@dataclass(frozen=True)
class Outlet:
    """Where a request's results go, and on which event loop."""

    loop: asyncio.AbstractEventLoop
    deliver: Deliver

    def __call__(self, result: Delta | Exception) -> None:
        self.deliver(result)


def flush(results: list[tuple[Request, Delta | Exception]]) -> None:
    """Hand results over, once for each event loop."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Request, Delta | Exception]]] = {}
    for request, result in results:
        assert isinstance(request.deliver, Outlet)
        by_loop.setdefault(request.deliver.loop, []).append((request, result))
    for loop, some in by_loop.items():
        # A loop that was closed meanwhile has nobody left who waits.
        if not loop.is_closed():
            loop.call_soon_threadsafe(_deliver_all, some)


def _deliver_all(results: list[tuple[Request, Delta | Exception]]) -> None:
    for request, result in results:
        request.deliver(result)


def resolve(future: asyncio.Future[Delta], result: Delta | Exception) -> None:
    """Bring about what is waited for, or its error."""
    settle(future.set_exception if isinstance(result, Exception) else future.set_result, future, result)


def settle(setter: Callable[[Any], None], future: asyncio.Future[Any], value: Any) -> None:
    """Set a future, unless nobody waits for it any more."""
    if not future.done():
        setter(value)


def signal() -> tuple[asyncio.Future[None], Callable[[], object]]:
    """A future, and what any thread calls to bring it about."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()
    return future, lambda: loop.call_soon_threadsafe(settle, future.set_result, future, None)
