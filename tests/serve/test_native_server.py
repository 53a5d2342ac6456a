"""A real model behind the server, in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.serve.conftest import Server, running

from llmkit import cli

CHAT = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}


@pytest.fixture(scope="module")
def native(tmp_path_factory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("native-server")
    with running(directory, ["--model", "builtin:tiny-untrained", "--served-name", "tiny", "--threads", 1]) as started:
        yield started


def test_greedy_answers_agree_streamed_or_not(native):
    whole = native.call("/v1/chat/completions", {**CHAT, "temperature": 0}, key=None)[2]
    assert whole["usage"]["completion_tokens"] <= 8
    events = native.call("/v1/chat/completions", {**CHAT, "temperature": 0, "stream": True}, key=None)[2].decode()
    chunks = [json.loads(event.removeprefix("data: ")) for event in events.split("\n\n")[:-2]]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]


def test_seeds_repeat_and_answers_differ(native):
    first, again = (native.call("/v1/chat/completions", {**CHAT, "seed": 7, "n": 3}, key=None)[2] for _ in range(2))
    texts = [choice["message"]["content"] for choice in first["choices"]]
    assert texts == [choice["message"]["content"] for choice in again["choices"]]
    assert len(set(texts)) > 1
    second = native.call("/v1/chat/completions", {**CHAT, "seed": 8}, key=None)[2]
    assert second["choices"][0]["message"]["content"] == texts[1]


def test_rollouts_have_logprobs_and_versions(native):
    body = {"text": "Carla has 5 boxes", "sampling": {"max_new_tokens": 6, "seed": 1, "stop_token_ids": []}}
    (one,) = native.call("/generate", body, key=None)[2]["completions"]
    assert len(one["token_ids"]) == len(one["logprobs"]) == 6
    assert all(-20 < logprob < 0 for logprob in one["logprobs"])
    assert one["versions"] == [0] * 6


def test_a_prompt_beyond_the_context_is_told_so(native):
    status, _, body = native.call("/v1/chat/completions", {**CHAT, "max_tokens": 2048}, key=None)
    assert (status, body["error"]["code"]) == (400, "context_length_exceeded")


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a server says that cannot start."""
    assert cli.run(["serve", "--dry-run", *map(str, arguments)]) == 2
    return capsys.readouterr().err


def test_a_port_that_is_taken(native):
    port = native.url.rpartition(":")[2]
    command = [sys.executable, "-m", "llmkit", "serve", "--port", port]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2, done.stderr
    assert f"server.port={port}: another program has this port" in done.stderr


def test_an_open_address_needs_a_key(capsys):
    assert "there is no API key" in refused(capsys, "--host", "0.0.0.0")


def test_a_model_that_is_not_there(tmp_path, capsys):
    assert "no such directory" in refused(capsys, "--port", 0, "--model", tmp_path / "none")


def test_an_adapter_that_is_not_there(tmp_path, capsys):
    assert "adapters.poet" in refused(capsys, "--port", 0, "--preset", "echo", "--lora", f"poet={tmp_path}/none")


def test_a_dry_run_says_what_the_server_would_be(capsys):
    assert cli.run(["serve", "--dry-run", "--json", "--port", "0", "--preset", "echo"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["engine"], facts["tool_parser"], facts["keys"]) == ("echo", "hermes", "none needed")
