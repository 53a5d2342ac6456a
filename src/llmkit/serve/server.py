"""The process: a port, the application, and the way out."""

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn

from llmkit.config.serving import ServeRun, is_loopback
from llmkit.errors import ConfigError
from llmkit.serve.keys import KeyRing, open_keys
from llmkit.serve.logs import set_up_logs

if TYPE_CHECKING:
    from llmkit.serve.service import Service

logger = logging.getLogger("llmkit.serve")

BACKLOG = 2048
CLOSING_SECONDS = 5


@dataclass(frozen=True)
class Listening:
    """A server that takes requests.

    Attributes:
        url: where it is.
        models: what requests can name.
        engine: name of the engine.
        needs_key: whether requests need an API key.
        servers: addresses of the servers behind it, which answer too; none where the engine runs in this process.
    """

    url: str
    models: tuple[str, ...]
    engine: str
    needs_key: bool
    servers: tuple[str, ...] = ()


def serve(run: ServeRun, tell: Callable[[Listening], None]) -> None:
    """Serve until SIGTERM or SIGINT; then no new requests, and the running ones may end.

    Args:
        run: the settings.
        tell: called when the server takes requests.
    Raises:
        ConfigError: the port is taken, or a setting cannot be had.
        ModelError, PluginError, EngineError: the engine cannot start.
    """
    set_up_logs(run.server.log_format)
    keys = open_keys(run.auth)
    if keys.is_open and not is_loopback(run.server.host):
        logger.warning(
            "server.host=%s is open to other machines, and server.allow_without_keys lets everyone in", run.server.host
        )
    # Taken before anything is loaded, which may take minutes; nobody can connect before the server listens.
    with bind(run.server.host, run.server.port) as listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(run, keys, listener, tell))


@contextmanager
def bind(host: str, port: int) -> Iterator[socket.socket]:
    """A socket that has its port, and does not listen yet.

    Raises:
        ConfigError: the port is taken or not allowed, or this machine has no such address.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ConfigError(f"server.host={host}: {error.strerror}") from error
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigError(_bind_problem(error, host, port)) from error
        listener.setblocking(False)
        yield listener


def _bind_problem(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"server.port={port}: another program has this port; choose another with --port, 0 takes a free one"
    if error.errno == errno.EACCES:
        return f"server.port={port}: ports below 1024 need privileges; choose another with --port"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"server.host={host}: this machine has no such address; 127.0.0.1 is itself, 0.0.0.0 all that it has"
    return f"server.host={host}, server.port={port}: {error.strerror}"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:  # there is none for Windows
        return None
    return uvloop.new_event_loop


async def _serve(run: ServeRun, keys: KeyRing, listener: socket.socket, tell: Callable[[Listening], None]) -> None:
    # Heavy imports come after what is wrong with keys and port has been told.
    from llmkit.engines.inference.remote.contract import FleetEngine
    from llmkit.serve.app import make_app
    from llmkit.serve.assembly import open_service

    service = await open_service(run)
    try:
        config = uvicorn.Config(
            make_app(service, keys),
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            backlog=BACKLOG,
            timeout_graceful_shutdown=CLOSING_SECONDS,
        )
        names = (*service.names, *service.engine.adapters)
        behind = service.engine.fleet.servers if isinstance(service.engine, FleetEngine) else ()
        servers = tuple(server.url for server in behind)
        listening = Listening(_url(run.server.host, listener), names, run.engine.name, not keys.is_open, servers)
        server = _Server(config, lambda: tell(listening))
        stopping = _Stopping(server, service)
        with stopping.on_signals():
            await server.serve(sockets=[listener])
        await stopping.finished()
    finally:
        await service.close()


class _Server(uvicorn.Server):
    """Leaves signals to us, and tells when it listens."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        self._tell()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class _Stopping:
    """From the first signal to the end: not ready, then closed, then drained, then cut off."""

    def __init__(self, server: _Server, service: "Service") -> None:
        self._server = server
        self._service = service
        self._settings = service.run.server
        self._task: asyncio.Task[None] | None = None
        self._is_urgent = asyncio.Event()

    @contextmanager
    def on_signals(self) -> Iterator[None]:
        """Stop when a signal says so; a second one ends the requests that still run at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)

    async def finished(self) -> None:
        """Wait until the last step was done."""
        if self._task is not None:
            await self._task

    def _signalled(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._stop())
        elif not self._is_urgent.is_set():
            logger.warning("stopping at once: a second signal came")
            self._is_urgent.set()

    async def _wait(self, until: Coroutine[Any, Any, object], seconds: float) -> None:
        """Wait, for some seconds at most and not beyond a second signal."""
        waiting = [asyncio.ensure_future(until), asyncio.ensure_future(self._is_urgent.wait())]
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _stop(self) -> None:
        admission = self._service.admission
        self._service.is_stopping = True
        if delay := self._settings.drain_delay_seconds:
            await self._wait(asyncio.sleep(delay), delay)
        admission.is_closed = True
        if admission.num_requests:
            seconds = self._settings.drain_seconds
            logger.info("stopping: %d requests have %g seconds to end", admission.num_requests, seconds)
            await self._wait(admission.wait_idle(), seconds)
            if admission.num_requests:
                logger.warning("stopping: %d requests are ended before their answers", admission.num_requests)
                await self._service.engine.close()
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSING_SECONDS):
                        await admission.wait_idle()
        self._server.should_exit = True


def _url(host: str, listener: socket.socket) -> str:
    port = listener.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
