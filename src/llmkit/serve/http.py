"""From an HTTP request to a handler and back: body, answer, and the client that goes away."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.types import Message, Receive, Scope, Send

from llmkit.serve.api_errors import ApiError, bad_request, decode_error
from llmkit.serve.context import CONTEXT, Context
from llmkit.serve.streams import GRACE_SECONDS, Stream, send_stream

DISCONNECT = "http.disconnect"
JSON = "application/json"


class ClientGone(Exception):  # noqa: N818 - nothing went wrong here
    """The client closed its connection before it had the answer."""


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
