"""What every request goes through: an id, a key, an error in its API's shape, a line in the log."""

import asyncio
import logging
import re
import secrets
from contextlib import suppress
from time import monotonic

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmkit.config.serving import is_loopback
from llmkit.serve.api_errors import ApiError, as_api_error, dialect_of
from llmkit.serve.context import CONTEXT, Context
from llmkit.serve.http import DISCONNECT, JSON, ClientGone, send_body
from llmkit.serve.keys import KeyRing
from llmkit.serve.logs import AccessLine
from llmkit.serve.service import Service

logger = logging.getLogger("llmkit.serve")
access = logging.getLogger("llmkit.serve.access")

REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
HOST = re.compile(r"(\[[^\]]*\]|[^:]*)(?::\d*)?")
"""A name or address, and a port."""
CLIENT_GONE = 499
MAX_DISCARDED_BYTES = 64 << 20
MAX_DISCARD_SECONDS = 10.0


class Gate:
    """Stands before the routes."""

    def __init__(self, app: ASGIApp, *, service: Service, keys: KeyRing, open_paths: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._keys = keys
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = monotonic()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        context = Context(self._service, request_id, dialect_of(scope["path"]))
        if "anthropic-version" in headers and scope["path"].startswith("/v1/models"):
            context.dialect = "anthropic"
        scope[CONTEXT] = context
        answer, body = _Answer(send, request_id), _Body(receive)
        try:
            if scope["path"] not in self._open_paths:
                self._check_key(context, headers)
            await self._app(scope, body.receive, answer.send)
        except ClientGone:
            answer.status = CLIENT_GONE
        except Exception as error:  # noqa: BLE001 - whatever it is, the client gets an answer
            await self._refuse(answer, body, context, error)
        finally:
            self._tell(scope, context, answer.status, monotonic() - start)

    def _check_key(self, context: Context, headers: dict[str, str]) -> None:
        if self._keys.is_open:
            self._check_host(headers.get("host"))
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if not key:
            raise ApiError(
                401,
                "You didn't provide an API key: send `Authorization: Bearer KEY` or `x-api-key: KEY`",
                code="invalid_api_key",
            )
        context.key_id = self._keys.identify(key)
        if context.key_id is None:
            raise ApiError(401, "Incorrect API key provided", code="invalid_api_key")

    def _check_host(self, host: str | None) -> None:
        """Refuse a web page that has its own name point to this machine, and so may ask without a key."""
        server = self._service.run.server
        if host is None or not is_loopback(server.host) or "*" in server.allowed_hosts:
            return
        match = HOST.fullmatch(host.lower())
        name = match[1].strip("[]") if match else ""
        if not (is_loopback(name) or name.endswith(".localhost") or name in map(str.lower, server.allowed_hosts)):
            raise ApiError(
                403,
                f"this server has no keys and answers to this machine's own names, not to '{host[:200]}'; start it "
                "with a key, or allow the name with --set server.allowed_hosts",
                code="host_not_allowed",
            )

    async def _refuse(self, answer: "_Answer", body: "_Body", context: Context, error: Exception) -> None:
        problem = as_api_error(error)
        context.notes["error"] = str(problem)
        if problem.status == 500:
            logger.error("%s failed", context.request_id, exc_info=error)
        if answer.status:  # too late for a status: the connection breaks off, which no client takes for an end
            raise error
        await body.discard()
        text = msgspec.json.encode(problem.document(context.dialect, context.request_id))
        await send_body(answer.send, problem.status, text, JSON, problem.headers)

    def _tell(self, scope: Scope, context: Context, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "") or "unknown"
        self._service.metrics.count(scope["method"], route, status)
        is_probe = scope["path"] in self._open_paths and status < 400
        if self._service.run.server.access_log and not is_probe:
            facts = {
                "request_id": context.request_id,
                "method": scope["method"],
                "path": scope["path"],
                "status": status,
                "seconds": round(seconds, 4),
                "client": (scope.get("client") or ("unknown",))[0],
                "key": context.key_id,
                **context.notes,
            }
            access.info("%s", AccessLine(facts))


class _Answer:
    """Sends an answer, with the request's id, and remembers its status."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id = request_id.encode()
        self.status = 0

    async def send(self, message: Message) -> None:
        """Send on."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ids = [(b"x-request-id", self._request_id), (b"request-id", self._request_id)]
            message = {**message, "headers": [*message.get("headers", []), *ids]}
        await self._send(message)


class _Body:
    """Receives a request's body, and knows whether all of it has come."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._is_whole = False

    async def receive(self) -> Message:
        """The next message."""
        message = await self._receive()
        self._is_whole |= message["type"] == DISCONNECT or not message.get("more_body", False)
        return message

    async def discard(self) -> None:
        """Take what has not come yet, within bounds: a client that still sends would find the connection broken in
        place of the answer."""
        size = 0
        with suppress(TimeoutError):
            async with asyncio.timeout(MAX_DISCARD_SECONDS):
                while not self._is_whole and size < MAX_DISCARDED_BYTES:
                    size += len((await self.receive()).get("body", b""))
