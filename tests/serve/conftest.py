"""Server processes, as users start them."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

KEY = "sk-test-of-the-server"
MODEL = "scripted"
THOUGHTS = "<think>\nTwo and two.\n</think>\n\nIt is 4."
TWO_CALLS = (
    'Let me look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Rom"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call>'
)
ONE_CALL = '[{"name": "weather", "parameters": {"city": "Oslo"}}]'
TEXTS = ["Hello there, world!", THOUGHTS, TWO_CALLS, ONE_CALL, '{"city": "Oslo"}', "Grüße aus 東京 🙂", "word " * 400]
HELLO, THINKING, CALLING, FORCED, OBJECT, CHARACTERS, LONG = range(len(TEXTS))
"""Places in the script of the echo engine; a request's seed chooses one."""


@dataclass
class Server:
    """A running `llmkit serve`."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def call(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = KEY,
        headers: Mapping[str, str] = {},
        method: str | None = None,
    ) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and body; JSON is parsed."""
        sent = dict(headers)
        if key is not None:
            sent.setdefault("authorization", f"Bearer {key}")
        data = body
        if body is not None and not isinstance(body, bytes):
            data = json.dumps(body).encode()
        if data is not None:
            sent.setdefault("content-type", "application/json")
        request = urllib.request.Request(self.url + path, data, sent, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return response.status, response.headers, _parsed(response.read(), response.headers)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, _parsed(error.read(), error.headers)

    def metric(self, name: str) -> float:
        """One figure of /metrics, summed over its labels."""
        text = self.call("/metrics")[2].decode()
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        assert found, f"no metric {name}"
        return sum(map(float, found))

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a figure has a value."""
        import time

        end = time.monotonic() + 20
        while self.metric(name) != value:
            assert time.monotonic() < end, f"{name} is {self.metric(name)}, not {value}"
            time.sleep(0.02)


def _parsed(body: bytes, headers: Any) -> Any:
    return json.loads(body) if headers.get("content-type", "").startswith("application/json") else body


@contextmanager
def running(directory: Path, arguments: Sequence[object]) -> Iterator[Server]:
    """Start a server on a free port, and end it with the block."""
    log = directory / "server.log"
    command = [sys.executable, "-m", "llmkit", "serve", "--port", "0", "--json", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, log.read_text()
        yield Server(process, json.loads(line)["url"], log)
    finally:
        process.stdout.close()
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The echo engine with a script, behind a key; its prompts and its body sizes are limited."""
    directory = tmp_path_factory.mktemp("echo-server")
    config = directory / "serve.yaml"
    settings = {
        "engine": {"name": "echo", "texts": TEXTS, "seconds_per_token": 0.001, "context_length": 2000},
        "model": {"path": "builtin:tiny-untrained", "chat_template": "qwen"},
        "server": {"served_names": [MODEL, "also"], "allow_adapter_loading": True, "log_format": "json"},
        "auth": {"keys": [KEY]},
        "limits": {"max_body_bytes": 3_000_000, "max_completions": 8, "max_requests": 64},
    }
    config.write_text(json.dumps(settings, ensure_ascii=False), encoding="utf-8")
    with running(directory, ["--config", config]) as started:
        yield started
