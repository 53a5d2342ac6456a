"""Streams of deltas: several as one, and one as a completion."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from typing import TypeVar

from llmkit.engines.inference.contract import Delta
from llmkit.types import Completion, StopReason

T = TypeVar("T")


class _End:
    """A stream has ended, or raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


async def merge(streams: Sequence[AsyncGenerator[T]]) -> AsyncGenerator[T]:
    """What several streams give, in the order in which it comes.

    The first error ends all of them. Closing this one, or cancelling the task that reads it, closes them too.
    """
    if len(streams) == 1:
        try:
            async for item in streams[0]:
                yield item
        finally:
            await streams[0].aclose()
        return
    queue: asyncio.Queue[T | _End] = asyncio.Queue(maxsize=2 * len(streams))

    async def pump(stream: AsyncGenerator[T]) -> None:
        try:
            async for item in stream:
                await queue.put(item)
        except Exception as error:  # noqa: BLE001 - whoever reads the merged stream is told
            await queue.put(_End(error))
        else:
            await queue.put(_End(None))
        finally:
            await stream.aclose()

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    remaining = len(tasks)
    try:
        while remaining:
            item = await queue.get()
            if not isinstance(item, _End):
                yield item
                continue
            if item.error is not None:
                raise item.error
            remaining -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stream in streams:
            await stream.aclose()


async def collect(stream: AsyncIterable[Delta]) -> Completion:
    """The completion that a stream of one completion makes."""
    token_ids: list[int] = []
    logprobs: list[float] = []
    versions: list[int] = []
    reason: StopReason = "cancelled"
    async for delta in stream:
        token_ids += delta.token_ids
        logprobs += [score.logprob or 0.0 for score in delta.scores]
        versions += delta.versions
        reason = delta.stop_reason or reason
    return Completion(token_ids, logprobs, versions, reason)
