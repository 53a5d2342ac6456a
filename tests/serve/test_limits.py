"""A server that is full, slow, or told to stop."""

import json
import signal
import threading
import time
from collections.abc import Iterator

import anthropic
import openai
import pytest
from tests.serve.conftest import Server, running

from llmkit.serve.keys import new_key, revoke_key

CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A file with two keys."""
    path = tmp_path_factory.mktemp("keys") / "keys.json"
    return path, new_key(path, "one"), new_key(path, "two")


@pytest.fixture(scope="module")
def small(tmp_path_factory, keys) -> Iterator[Server]:
    """Room for two requests, one of each key; an answer takes seconds."""
    directory = tmp_path_factory.mktemp("small-server")
    config = directory / "serve.yaml"
    settings = {
        "engine": {"name": "echo", "texts": ["slow " * 100], "seconds_per_token": 0.02},
        "model": {"path": "builtin:tiny-untrained"},
        "server": {
            "served_names": ["m"],
            "drain_seconds": 0.5,
            "drain_delay_seconds": 0.5,
            "ping_seconds": 0.2,
            "cors_origins": ["https://app.example.com"],
        },
        "auth": {"keys_file": str(keys[0])},
        "limits": {"max_requests": 2, "max_requests_per_key": 1, "max_seconds": 1.0},
    }
    config.write_text(json.dumps(settings))
    with running(directory, ["--config", config]) as started:
        yield started


class Busy:
    """Streams that hold places, one for each key, for as long as the block."""

    def __init__(self, server: Server, *keys: str) -> None:
        self.clients = [openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) for key in keys]

    def __enter__(self):
        self.streams = [client.chat.completions.create(**CHAT, stream=True) for client in self.clients]
        for stream in self.streams:
            next(iter(stream))
        return self

    def __exit__(self, *_):
        for stream in self.streams:
            stream.close()
        for client in self.clients:
            client.close()


def test_a_key_with_too_many_requests_gets_429(small, keys):
    (_, (one, _), _) = keys
    with Busy(small, one), openai.OpenAI(base_url=f"{small.url}/v1", api_key=one, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(**CHAT)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert client.models.list().data, "what draws no tokens goes on"


def test_a_full_server_gives_503_in_the_shape_of_each_api(small, keys):
    path, (one, _), (two, _) = keys
    three, _ = new_key(path, "three")
    time.sleep(1.1)  # the server looks at its keys once a second
    small_url = f"{small.url}/v1"
    with Busy(small, one, two):
        with openai.OpenAI(base_url=small_url, api_key=three, max_retries=0) as client:
            with pytest.raises(openai.InternalServerError) as caught:
                client.chat.completions.create(**CHAT)
            assert caught.value.status_code == 503
            assert int(caught.value.response.headers["retry-after"]) >= 1
        with anthropic.Anthropic(base_url=small.url, api_key=three, max_retries=0) as client:
            with pytest.raises(anthropic.InternalServerError) as refused:
                client.messages.create(**CHAT, max_tokens=5)
            assert refused.value.body["error"]["type"] == "overloaded_error"


def test_a_request_that_takes_too_long(small, keys):
    key = keys[1][0]
    small.call("/version", key=key)
    status, _, body = small.call("/v1/chat/completions", CHAT, key=key)
    assert (status, body["error"]["code"]) == (504, "timeout")
    events = small.call("/v1/chat/completions", {**CHAT, "stream": True}, key=key)[2].decode().split("\n\n")
    assert json.loads(events[-3].removeprefix("data: "))["error"]["code"] == "timeout"
    assert events[-2:] == ["data: [DONE]", ""]
    message = {**CHAT, "max_tokens": 500, "stream": True}
    events = small.call("/v1/messages", message, key=key)[2].decode().split("\n\n")
    assert events[-2].startswith("event: error\ndata: ")


def test_a_key_that_was_revoked_is_refused(small, keys):
    path = keys[0]
    text, entry = new_key(path, "short-lived")
    time.sleep(1.1)
    assert small.call("/v1/models", key=text)[0] == 200
    revoke_key(path, entry.id)
    time.sleep(1.1)
    assert small.call("/v1/models", key=text)[0] == 401


def test_pages_of_a_named_origin_may_ask(small, keys):
    origin = {"origin": "https://app.example.com"}
    assert (
        small.call("/v1/models", key=keys[1][0], headers=origin)[1]["access-control-allow-origin"] == origin["origin"]
    )
    preflight = {**origin, "access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    assert small.call("/v1/chat/completions", key=None, headers=preflight, method="OPTIONS")[0] == 200
    stranger = {"origin": "https://elsewhere.example.com"}
    assert "access-control-allow-origin" not in small.call("/v1/models", key=keys[1][0], headers=stranger)[1]


def test_sigterm_flips_readiness_then_drains_then_tells_who_is_left(small, keys):
    key = keys[1][0]
    answers: list[str] = []

    def ask() -> None:
        answers.append(small.call("/v1/chat/completions", {**CHAT, "stream": True}, key=key)[2].decode())

    asking = threading.Thread(target=ask)
    asking.start()
    small_key = keys[2][0]
    end = time.monotonic() + 10
    while "llmkit_requests_running{" not in (text := small.call("/metrics", key=small_key)[2].decode()) or (
        'llmkit_requests_running{model_name="m"} 1.0' not in text
    ):
        assert time.monotonic() < end
    small.process.send_signal(signal.SIGTERM)
    end = time.monotonic() + 5
    while small.call("/ready", key=None)[0] != 503:
        assert time.monotonic() < end
    assert small.call("/health", key=None)[0] == 200
    asking.join(20)
    events = answers[0].split("\n\n")
    assert events[-2] == "data: [DONE]"
    assert json.loads(events[-3].removeprefix("data: "))["error"]["code"] in ("cancelled", "timeout")
    assert small.process.wait(20) == 0


def test_a_second_signal_does_not_wait_for_the_drain(tmp_path):
    script = json.dumps(["slow " * 400])
    options = ["--preset", "echo", "--served-name", "m", "--set", "engine.seconds_per_token=0.05"]
    options += ["--set", f"engine.texts={script}", "--set", "server.drain_seconds=600"]
    with running(tmp_path, options) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        with client, client.chat.completions.create(**CHAT, stream=True) as stream:
            next(iter(stream))
            server.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + 10
            while server.call("/ready", key=None)[0] != 503:
                assert time.monotonic() < end
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(openai.APIError, match="before its answer was whole"):
                list(stream)
        assert server.process.wait(20) == 0
    assert "Traceback" not in server.log.read_text()
