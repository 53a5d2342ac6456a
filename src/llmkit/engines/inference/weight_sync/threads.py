"""Work beside the event loop that nobody has to wait for: a stuck disk or peer keeps no program from ending."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(work: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
    """What `work` returns, or raises, in a thread of its own.

    `asyncio.to_thread` is not for work that may be given up: its threads are waited for when the loop ends.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def tell(method: Callable[[Any], None], value: Any) -> None:
        if not result.done():
            method(value)

    def run() -> None:
        try:
            outcome: tuple[Callable[[Any], None], Any] = (result.set_result, work(*arguments, **options))
        except BaseException as error:  # noqa: BLE001 - raised where somebody waits for it
            outcome = (result.set_exception, error)
        with suppress(RuntimeError):  # the loop has ended meanwhile, and nobody waits any more
            loop.call_soon_threadsafe(tell, *outcome)

    threading.Thread(target=run, name="weight-sync", daemon=True).start()
    return await result
