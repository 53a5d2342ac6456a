"""Server-sent events: as they come, with signs of life between them, and errors after the start."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Send

from llmkit.serve.api_errors import ApiError, as_api_error
from llmkit.serve.context import Context

logger = logging.getLogger("llmkit.serve")

HOLD_SECONDS = 1.0
"""How long a stream waits with its status for the first event: until then an error can still have a status."""
GRACE_SECONDS = 5.0
"""How long an engine may be late with the end of a request whose time is over."""


@dataclass(frozen=True)
class Stream:
    """An answer of server-sent events; each item is one whole event."""

    events: AsyncGenerator[bytes]


async def send_stream(context: Context, stream: Stream, send: Send) -> None:
    """Send events as they come, and a sign of life when none comes. An error after the start becomes an event."""
    events = stream.events
    first = asyncio.ensure_future(anext(events, None))
    try:
        await asyncio.wait({first}, timeout=HOLD_SECONDS)
        if first.done():
            first.result()  # raises what can still have a status
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        headers.append((b"x-accel-buffering", b"no"))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await _send_events(context, first, events, send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})
    finally:
        first.cancel()
        with suppress(BaseException):
            await first
        await events.aclose()


async def _send_events(
    context: Context, first: "asyncio.Future[bytes | None]", events: AsyncGenerator[bytes], send: Send
) -> None:
    alive = _SignsOfLife(context, send)
    try:
        async with asyncio.timeout(context.service.timeout() + GRACE_SECONDS):
            chunk = await first
            while chunk is not None:
                await alive.send(chunk)
                chunk = await anext(events, None)
    except Exception as error:
        problem = as_api_error(error)
        context.notes["error"] = str(problem)
        if problem.status == 500:
            logger.error("%s failed in its stream", context.request_id, exc_info=error)
        await alive.send(error_event(problem, context))
    finally:
        await alive.stop()


class _SignsOfLife:
    """Sends events, and something that means nothing whenever there was none for a while."""

    def __init__(self, context: Context, send: Send) -> None:
        self._send = send
        self._seconds = context.service.run.server.ping_seconds
        self._text = b'event: ping\ndata: {"type": "ping"}\n\n' if context.dialect == "anthropic" else b": ping\n\n"
        self._last = asyncio.get_running_loop().time()
        self._task = asyncio.ensure_future(self._ping())

    async def send(self, chunk: bytes) -> None:
        """Send one whole event."""
        self._last = asyncio.get_running_loop().time()
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    async def stop(self) -> None:
        """Send no more signs of life."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _ping(self) -> None:
        while True:
            quiet = asyncio.get_running_loop().time() - self._last
            if quiet >= self._seconds:
                await self.send(self._text)
                quiet = 0.0
            await asyncio.sleep(self._seconds - quiet)


def event(data: Any, name: str | None = None) -> bytes:
    """One server-sent event with JSON data."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + msgspec.json.encode(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"


def error_event(problem: ApiError, context: Context) -> bytes:
    """An error after the start of a stream; OpenAI's ends as every stream of it does."""
    document = problem.document(context.dialect, context.request_id)
    return event(document, "error") if context.dialect == "anthropic" else event(document) + DONE
