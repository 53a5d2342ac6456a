"""Servers behind one engine: those that llmkit started, and those that run already."""

import http.client
import json
from collections.abc import Sequence
from urllib.parse import urlsplit

from llmkit.engines.inference.remote.contract import Server
from llmkit.engines.servers.server import SupervisedServer
from llmkit.errors import ConfigError, EngineError
from llmkit.terminal import stderr_console

ASK_SECONDS = 30.0
MOST_BYTES = 1 << 20


class StartedFleet:
    """Servers that end with llmkit, and are started again when they crash."""

    def __init__(self, servers: Sequence[SupervisedServer]) -> None:
        """Start them all side by side, and wait until each is ready, or late by its own clock.

        Raises:
            EngineError: one did not start; all are stopped then.
        """
        self._supervised = tuple(servers)
        self._servers = tuple(
            Server(index, one.command.url, one.command.model, one.command.api_key) for index, one in enumerate(servers)
        )
        try:
            for server in self._supervised:
                server.start()
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def servers(self) -> Sequence[Server]:
        """All of them."""
        return self._servers

    def num_starts(self, index: int) -> int:
        """How often a server was started."""
        return self._supervised[index].num_starts

    def failure(self, index: int) -> str | None:
        """Why a server is gone for good."""
        return self._supervised[index].failure

    def close(self) -> None:
        """Stop them, side by side."""
        for server in self._supervised:
            server.ask_to_stop()
        for server in self._supervised:
            server.join()

    def _wait(self) -> None:
        waiting = list(self._supervised)
        while waiting:
            waiting = [server for server in waiting if not server.wait_until_settled(0.1 / len(waiting))]
            for server in self._supervised:
                if server.failure is not None:
                    raise EngineError(server.failure)


class GivenFleet:
    """Servers that somebody else looks after."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)

    @property
    def servers(self) -> Sequence[Server]:
        """All of them."""
        return self._servers

    def num_starts(self, index: int) -> int:
        """1: nobody tells."""
        return 1

    def failure(self, index: int) -> str | None:
        """None: it may come back."""
        return None

    def close(self) -> None:
        """Leave them running."""


def given_fleet(urls: Sequence[str], served_name: str | None, api_key: str | None) -> GivenFleet:
    """The servers behind addresses; they are asked for their model's name when it was not given.

    Raises:
        ConfigError: an address is none, or names a path.
        EngineError: a server that has to be asked does not answer, or serves several models.
    """
    places = [origin_of(url) for url in urls]
    if len(set(places)) < len(places):
        raise ConfigError(f"engine.urls names one server twice: {', '.join(urls)}")
    return GivenFleet(
        [
            Server(index, place, served_name or _only_model(place, api_key), api_key)
            for index, place in enumerate(places)
        ]
    )


def origin_of(url: str) -> str:
    """`http://host:port` of an address; `/v1` behind it, which OpenAI's clients want, is left out.

    Raises:
        ConfigError: it is no such address.
    """
    parts = urlsplit(url.strip())
    try:
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number
        is_usable = False
    if not is_usable:
        raise ConfigError(f"engine.urls: {url!r} is no address of a server; write http://host:port")
    if parts.path.rstrip("/") not in ("", "/v1") or parts.query or parts.fragment:
        raise ConfigError(f"engine.urls: {url!r} has a path; write {parts.scheme}://{parts.netloc} alone")
    return f"{parts.scheme}://{parts.netloc}"


def tell_on_stderr(text: str) -> None:
    """A line of progress, above whatever bar is shown."""
    stderr_console().print(text, markup=False, soft_wrap=True)


def _only_model(origin: str, api_key: str | None) -> str:
    """The name of the one model that a server has.

    Raises:
        EngineError: it does not answer, or has none or several.
    """
    parts = urlsplit(origin)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.netloc, timeout=ASK_SECONDS)
    try:
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        connection.request("GET", "/v1/models", headers=headers)
        answer = connection.getresponse()
        status, body = answer.status, answer.read(MOST_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise EngineError(f"{origin}: the server does not answer ({error or type(error).__name__})") from error
    finally:
        connection.close()
    names = _model_names(body) if status == 200 else None
    if names is None:
        raise EngineError(f"{origin}/v1/models answers with status {status} and no models; set engine.served_name")
    if len(names) != 1:
        raise EngineError(f"{origin} serves {', '.join(names) or 'no model'}; choose one with engine.served_name")
    return names[0]


def _model_names(body: bytes) -> list[str] | None:
    """Names in an answer of `/v1/models`, adapters left out; None where it is none."""
    try:
        models = json.loads(body)["data"]
        return [str(model["id"]) for model in models if model.get("parent") is None]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
