"""HTTP to one server, with a deadline on every wait and an error that names phase and server."""

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import ClientError, ClientResponse, ClientSession, ClientTimeout, TCPConnector

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.pieces import Pieces
from llmkit.engines.inference.remote.sse import DONE, EventReader
from llmkit.engines.inference.remote.waits import Waits
from llmkit.errors import EngineBusyError, EngineError, RequestError

REFUSED = (400, 404, 413, 422)
"""Statuses of a request that no server would take."""
BUSY = (429, 503)
RETRY_SECONDS = 1.0
"""When to ask a busy server again that does not say."""
KEEP_ALIVE_SECONDS = 3.0
"""Less than any server's own (uvicorn: 5): a connection must not be closed while a request is on its way."""
READ_BYTES = 1 << 18
SHOWN_CHARACTERS = 500
_DECODERS: dict[Any, "msgspec.json.Decoder[Any]"] = {}


class HttpClient:
    """Connections to the servers of one engine, kept for the next request. It belongs to one event loop."""

    def __init__(self, deadlines: Deadlines) -> None:
        self.deadlines = deadlines
        self._session: ClientSession | None = None

    @property
    def session(self) -> ClientSession:
        """Opened when it is first needed, because that takes a running event loop."""
        if self._session is None:
            connector = TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
            # The waits have their own deadlines; a total one would end a long stream.
            timeout = ClientTimeout(total=None, sock_connect=self.deadlines.connect_seconds)
            self._session = ClientSession(connector=connector, timeout=timeout, read_bufsize=READ_BYTES)
        return self._session

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


class HttpLink:
    """See `Link`."""

    def __init__(self, server: Server, client: HttpClient) -> None:
        self._server = server
        self._client = client
        self._deadlines = client.deadlines
        self._waits = Waits()
        self._streams: set[Pieces] = set()
        self._num_asked = 0
        self._headers = {"content-type": "application/json"}
        if server.api_key is not None:
            self._headers["authorization"] = f"Bearer {server.api_key}"

    @property
    def server(self) -> Server:
        """Whom it leads to."""
        return self._server

    @property
    def num_streams(self) -> int:
        """Streams of events that are open, or asked for."""
        return len(self._streams) + self._num_asked

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        phase: str,
        method: str = "POST",
        params: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
        kind: Any = Any,
    ) -> Any:
        """See `Link.call`."""
        seconds = self._deadlines.answer_seconds if timeout_seconds is None else timeout_seconds
        async with self._within(seconds, phase):
            response = await self._ask(method, path, body, params, phase)
            try:
                data = await response.read()
            finally:
                response.close()
        if not data:
            return None
        is_json = response.content_type == "application/json" or response.content_type.endswith("+json")
        return self._decoded(data, kind, phase) if is_json else data.decode(errors="replace")

    async def events(self, path: str, body: Mapping[str, Any], *, phase: str, kind: Any = Any) -> AsyncGenerator[Any]:
        """See `Link.events`."""
        reader = EventReader()
        idle_seconds = self._deadlines.idle_seconds
        self._num_asked += 1
        try:
            async with self._within(idle_seconds, phase):
                response = await self._ask("POST", path, body, None, phase)
        finally:
            self._num_asked -= 1
        pieces = Pieces(response, idle_seconds, lambda message: self._error(phase, message))
        self._streams.add(pieces)
        try:
            if response.content_type != "text/event-stream":
                raise self._error(phase, f"it answered with {response.content_type}, not with events")
            while piece := await pieces.next():
                for data in reader.push(piece):
                    if data == DONE:
                        # What is left is the end of the body; with it the connection can be used again.
                        while await pieces.next():
                            pass
                        return
                    if b'"error"' in data:
                        self._raise_failure(data, phase)
                    yield self._decoded(data, kind, phase)
        finally:
            pieces.close()
            # Nothing is left to close after the end of the body; before it, the server sees that nobody listens.
            response.close()
            self._streams.discard(pieces)

    def cut(self, error: EngineError) -> None:
        """Let everything that waits for the server, or reads a stream of its, raise an error."""
        self._waits.cut(error)
        for pieces in self._streams:
            pieces.cut(error)

    @asynccontextmanager
    async def _within(self, seconds: float, phase: str) -> AsyncGenerator[None]:
        late = self._error(phase, f"no answer within {seconds:g} seconds")
        try:
            async with self._waits.within(seconds, late):
                yield
        except (ClientError, OSError) as error:
            raise self._error(phase, str(error) or type(error).__name__) from error

    async def _ask(
        self, method: str, path: str, body: Mapping[str, Any] | None, params: Mapping[str, str] | None, phase: str
    ) -> ClientResponse:
        """An answer of which the head is there, and which is no refusal."""
        data = None if body is None else msgspec.json.encode(body)
        url = self._server.url + path
        response = await self._client.session.request(method, url, data=data, params=params, headers=self._headers)
        if response.status < 300:
            return response
        try:
            text = await response.text(errors="replace")
        finally:
            response.close()
        raise self._refusal(phase, response, text)

    def _decoded(self, data: bytes, kind: Any, phase: str) -> Any:
        decoder = _DECODERS.get(kind)
        if decoder is None:
            decoder = _DECODERS[kind] = msgspec.json.Decoder(kind)
        try:
            return decoder.decode(data)
        except msgspec.DecodeError as error:
            raise self._error(phase, f"its answer is not what it should be: {error}: {data[:80]!r}") from None

    def _refusal(self, phase: str, response: ClientResponse, text: str) -> EngineError:
        status, message = response.status, said(text)
        if status in BUSY:
            return self._busy(phase, message, _seconds(response.headers.get("retry-after")))
        if status in REFUSED:
            return RequestError(f"{self._server.url}: {phase}: {message}")
        if status in (401, 403):
            message += "; is the API key right?"
        return self._error(phase, f"status {status}: {message}")

    def _raise_failure(self, data: bytes, phase: str) -> None:
        """Raise the error of a stream's event, if it is one."""
        event = self._decoded(data, Any, phase)
        problem = event.get("error") if isinstance(event, dict) else None
        if problem is None:
            return
        message = str(problem.get("message", problem)) if isinstance(problem, dict) else str(problem)
        code = problem.get("code") if isinstance(problem, dict) else None
        if code in REFUSED:
            raise RequestError(f"{self._server.url}: {phase}: {message}")
        raise self._busy(phase, message, RETRY_SECONDS) if code in BUSY else self._error(phase, message)

    def _busy(self, phase: str, message: str, seconds: float) -> EngineBusyError:
        return EngineBusyError(f"{self._server.url}: {phase}: it takes no request now: {message}", seconds)

    def _error(self, phase: str, message: str) -> EngineError:
        return EngineError(f"{self._server.url}: {phase}: {message}")


def said(text: str) -> str:
    """What the body of an error says, in the shapes that servers have for it."""
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError:
        document = None
    if isinstance(document, dict):
        inner = document.get("error", document)
        found = inner.get("message") or inner.get("detail") if isinstance(inner, dict) else inner
        text = str(found or text)
    return text[:SHOWN_CHARACTERS] or "no reason given"


def _seconds(header: str | None) -> float:
    """Of a Retry-After header; the form with a date counts as none."""
    try:
        seconds = float(header or "")
    except ValueError:
        return RETRY_SECONDS
    return seconds if math.isfinite(seconds) and seconds > 0 else RETRY_SECONDS
