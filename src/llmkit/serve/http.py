"""From an HTTP request to a handler and back: body, answer, stream, and the client that goes away."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.serve.admission import Place
from llmkit.serve.api_errors import ApiError, Dialect, as_api_error, bad_request, decode_error
from llmkit.serve.service import Service

logger = logging.getLogger("llmkit.serve")

CONTEXT = "llmkit.context"
HOLD_SECONDS = 1.0
"""How long a stream waits with its status for the first event: until then an error can still have a status."""
GRACE_SECONDS = 5.0
"""How long an engine may be late with the end of a request whose time is over."""
DISCONNECT = "http.disconnect"
JSON = "application/json"


class ClientGone(Exception):  # noqa: N818 - nothing went wrong here
    """The client closed its connection before it had the answer."""


@dataclass
class Context:
    """One request, as handlers and the access log know it.

    Attributes:
        service: what is served.
        request_id: given by the client, or made here.
        dialect: whose errors the client understands.
        key_id: id of the API key that was used; None where none is needed.
        path: parameters of the path.
        notes: more for the access log: tokens, the model.
        place: among the requests that the server can have; None for those that take none.
    """

    service: Service
    request_id: str
    dialect: Dialect
    key_id: str | None = None
    path: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    place: Place | None = None

    async def draw(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Delta]]:
        """As `Service.draw`; the place is free before the client hears the end, and can ask again."""
        drawn = self.service.draw(requests)
        try:
            async for item in drawn:
                yield item
        finally:
            await drawn.aclose()
            self.leave()

    def leave(self) -> None:
        """Give the place back, if there is one."""
        if self.place is not None:
            self.place.leave()


@dataclass(frozen=True)
class Stream:
    """An answer of server-sent events; each item is one whole event."""

    events: AsyncGenerator[bytes]


@dataclass(frozen=True)
class Raw:
    """An answer that is ready to be sent."""

    body: bytes
    content_type: str
    status: int = 200


Answer = msgspec.Struct | Stream | Raw
Handler = Callable[[Context, Any], Awaitable[Answer]]


@dataclass(frozen=True)
class Endpoint:
    """One route.

    Attributes:
        method: GET or POST.
        path: as Starlette writes it.
        handle: what answers.
        request: struct of the body; None where there is none.
        answer: struct of the answer; None for other content.
        is_open: whether it needs no key.
        generates: whether it takes a place among the requests that the server can have.
        events: what its streams are made of; None where it never streams.
    """

    method: str
    path: str
    handle: Handler
    request: Any = None
    answer: Any = None
    is_open: bool = False
    generates: bool = False
    events: Any = None


class EndpointApp:
    """An endpoint as an ASGI application."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._decoder = None if endpoint.request is None else msgspec.json.Decoder(endpoint.request)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        context: Context = scope[CONTEXT]
        context.path = scope.get("path_params", {})
        if self._endpoint.generates:
            context.place = context.service.admission.enter(context.key_id)
        try:
            request = None
            if self._decoder is not None:
                check_content_type(scope)
                request = decode(self._decoder, await read_body(scope, receive, context))
            await unless_gone(self._answer(context, request, send), receive)
        finally:
            context.leave()

    async def _answer(self, context: Context, request: Any, send: Send) -> None:
        async with asyncio.timeout(context.service.timeout() + GRACE_SECONDS):
            answer = await self._endpoint.handle(context, request)
        if isinstance(answer, Stream):
            await send_stream(context, answer, send)
        elif isinstance(answer, Raw):
            await send_body(send, answer.status, answer.body, answer.content_type)
        else:
            await send_body(send, 200, msgspec.json.encode(answer), JSON)


async def read_body(scope: Scope, receive: Receive, context: Context) -> bytes:
    """The whole body.

    Raises:
        ApiError: 413 when it is too large, 408 when it does not come.
        ClientGone: the client went away meanwhile.
    """
    limits = context.service.limits
    most = limits.max_body_bytes
    announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if announced.isdigit() and int(announced) > most:
        raise _too_large(most)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            while True:
                message = await receive()
                if message["type"] == DISCONNECT:
                    raise ClientGone
                chunk = message.get("body", b"")
                size += len(chunk)
                if size > most:
                    raise _too_large(most)
                chunks.append(chunk)
                if not message.get("more_body"):
                    return b"".join(chunks)
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {limits.body_seconds:g} seconds") from None


def check_content_type(scope: Scope) -> None:
    """Refuse what is not JSON: a web page may send other types to any server without asking.

    Raises:
        ApiError: 415.
    """
    for name, value in scope["headers"]:
        if name == b"content-type":
            kind = value.split(b";")[0].strip().lower().decode("latin-1")
            if kind == JSON or kind.endswith("+json"):
                return
            raise ApiError(415, f"Content-Type is {kind}; send {JSON}", code="unsupported_media_type")
    raise ApiError(415, f"there is no Content-Type; send {JSON}", code="unsupported_media_type")


def decode(decoder: "msgspec.json.Decoder[Any]", body: bytes) -> Any:
    """The body as the endpoint's struct.

    Raises:
        ApiError: 400, with the field.
    """
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise decode_error(error) from None
    except RecursionError:
        raise bad_request("the body is nested too deeply", code="invalid_json") from None


async def unless_gone(work: Awaitable[None], receive: Receive) -> None:
    """Do the work, unless the client goes away first: then it is cancelled.

    Raises:
        ClientGone: it went away.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
            return
        raise ClientGone
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


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


async def send_body(
    send: Send, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> None:
    """A whole answer."""
    pairs = {"content-type": content_type, "content-length": str(len(body)), **(headers or {})}
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in pairs.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


async def _disconnected(receive: Receive) -> None:
    message: Message = {"type": ""}
    while message["type"] != DISCONNECT:
        message = await receive()


def _too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than the {most} bytes that this server takes", code="request_too_large")
