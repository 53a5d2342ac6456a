"""Addresses where a server should be, and is not, or not one of the kind."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from llmkit.bench import load
from llmkit.bench.load import first_model
from llmkit.errors import BenchError


class Page(BaseHTTPRequestHandler):
    """Some other web server."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>welcome</html>")

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def page() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_server_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(load, "FIRST_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BenchError, match=f"{url}: takes connections, but /v1/models was not answered in 0.3 s"):
            asyncio.run(first_model(url, None))


def test_nobody_there():
    with pytest.raises(BenchError, match="no server answers there"):
        asyncio.run(first_model("http://127.0.0.1:9", None))


def test_another_web_server_is_named_as_such(page: str):
    with pytest.raises(BenchError, match="no list of models as OpenAI's API has it: '<html>welcome"):
        asyncio.run(first_model(page, None))
