"""What goes over the wire, apart from any client."""

import json
import socket
import subprocess
import sys
import textwrap

import pytest
from tests.serve.conftest import HELLO, KEY, LONG, MODEL, Server

from llmkit.serve.routes import ENDPOINTS

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "seed": HELLO}


def test_every_route_but_health_needs_a_key(server):
    paths = [(one.method, one.path, one.is_open) for one in ENDPOINTS] + [("GET", "/openapi.json", False)]
    for method, path, is_open in [*paths, ("GET", "/no/such/path", False)]:
        status, headers, body = server.call(path, b"{}" if method == "POST" else None, key=None)
        assert status == (200 if is_open else 401), path
        if status == 401:
            assert headers["www-authenticate"] == "Bearer"
            assert body["error"]["type"] in ("invalid_request_error", "authentication_error")
    assert [path for _, path, is_open in paths if is_open] == ["/health", "/ready"]
    assert server.call("/v1/models", key=None, headers={"x-api-key": KEY})[0] == 200


def test_health_ready_and_version(server):
    assert server.call("/health", key=None)[2] == {"status": "ok"}
    assert server.call("/ready", key=None)[2] == {"status": "ready"}
    assert server.call("/version")[2]["engine"] == "echo"


@pytest.mark.parametrize(
    ("body", "word"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "Expected `object`"),
        (b"\xff", "not valid JSON"),
        (b'{"model": 3, "messages": []}', "'model'"),
        (b'{"model": "x"}', "Missing required parameter: 'messages'"),
        (b"[" * 100_000, "Expected `object`"),
        (b'{"model": "x", "metadata": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", "nested"),
    ],
)
def test_a_body_that_is_no_request(server, body, word):
    status, _, answer = server.call("/v1/chat/completions", body)
    assert status == 400
    assert word in answer["error"]["message"]


def test_other_refusals_have_the_shape_of_the_api(server):
    assert server.call("/v1/chat/completions", b"x" * 9_000_000, key="wrong")[0] == 401
    status, headers, body = server.call("/v1/chat/completions", b"x" * 9_000_000)
    assert (status, body["error"]["code"]) == (413, "request_too_large")
    status, _, body = server.call("/v1/messages", b"x" * 3_000_001)
    assert (status, body["error"]["type"]) == (413, "request_too_large")
    assert server.call("/v1/chat/completions", b"{}", headers={"content-type": "text/plain"})[0] == 415
    status, _, body = server.call("/nowhere")
    assert status == 404
    assert "/nowhere" in body["error"]["message"]
    status, headers, _ = server.call("/v1/models", b"{}")
    assert status == 405
    assert "GET" in headers["allow"]


def test_request_ids_come_back_and_are_logged(server):
    headers = server.call("/v1/chat/completions", CHAT, headers={"x-request-id": "mine-17"})[1]
    assert headers["x-request-id"] == "mine-17"
    assert server.call("/version", headers={"x-request-id": "a b"})[1]["x-request-id"].startswith("req_")
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    (line,) = [line for line in lines if line.get("request_id") == "mine-17"]
    assert (line["status"], line["model"], line["key"]) == (200, MODEL, "settings-1")
    assert line["completion_tokens"] > 0
    assert KEY not in server.log.read_text()


def test_no_other_origin_may_ask(server):
    headers = server.call("/v1/models", headers={"origin": "https://example.com"})[1]
    assert "access-control-allow-origin" not in headers


def test_tokens_and_back(server):
    tokens = server.call("/tokenize", {"prompt": "Grüße", "return_token_strs": True})[2]
    assert tokens["count"] == len(tokens["tokens"]) == len(tokens["token_strs"])
    assert server.call("/detokenize", {"tokens": tokens["tokens"]})[2] == {"prompt": "Grüße"}
    chat = server.call("/tokenize", {"messages": CHAT["messages"]})[2]
    answer = server.call("/v1/chat/completions", CHAT)[2]
    assert chat["count"] == answer["usage"]["prompt_tokens"]
    assert server.call("/tokenize", {"prompt": "x", "messages": CHAT["messages"]})[0] == 400
    assert server.call("/detokenize", {"tokens": [10**6]})[0] == 400


def test_rollouts(server):
    sampling = {"max_new_tokens": 4, "seed": HELLO, "num_top_logprobs": 1, "prompt_logprobs": True}
    body = {"prompt_ids": [5, 6], "sampling": sampling, "n": 2}
    answer = server.call("/generate", body)[2]
    assert len(answer["completions"]) == 2
    for one in answer["completions"]:
        assert len(one["token_ids"]) == len(one["logprobs"]) == len(one["versions"]) == len(one["top_logprobs"]) == 4
        assert one["stop_reason"] == "length"
    assert answer["prompt_logprobs"] == [None, 0.0]
    events = server.call("/generate", {**body, "n": 1, "stream": True})[2].decode().split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    parts = [json.loads(event.removeprefix("data: "))["completions"][0] for event in events[:-2]]
    assert [token for part in parts for token in part["token_ids"]] == answer["completions"][0]["token_ids"]
    late = {"text": "x", "sampling": {"max_new_tokens": 900, "seed": LONG}, "timeout_seconds": 0.05}
    (cut,) = server.call("/generate", late)[2]["completions"]
    assert cut["stop_reason"] == "cancelled"
    assert 0 < len(cut["token_ids"]) < 400
    assert server.call("/generate", {"text": "x", "prompt_ids": [1]})[0] == 400
    assert server.call("/generate", {"text": "x", "adapter": "none"})[0] == 404


def test_adapters_come_and_go(server, tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    load = {"lora_name": "poet", "lora_path": str(tmp_path)}
    assert server.call("/v1/load_lora_adapter", load)[2]["adapters"] == ["poet"]
    assert server.call("/v1/load_lora_adapter", load)[0] == 400
    assert server.call("/v1/load_lora_adapter", {"lora_name": "x", "lora_path": "/nowhere"})[0] == 400
    models = server.call("/v1/models")[2]["data"]
    assert [(model["id"], model["parent"]) for model in models][-1] == ("poet", MODEL)
    assert server.call("/v1/chat/completions", {**CHAT, "model": "poet"})[2]["model"] == "poet"
    assert server.call("/v1/unload_lora_adapter", {"lora_name": "poet"})[0] == 200
    assert server.call("/v1/unload_lora_adapter", {"lora_name": "poet"})[0] == 404
    assert server.call("/v1/chat/completions", {**CHAT, "model": "poet"})[0] == 404


def test_metrics_have_the_names_that_dashboards_know(server):
    before = server.metric("vllm:generation_tokens_total")
    count = server.call("/v1/chat/completions", CHAT)[2]["usage"]["completion_tokens"]
    assert server.metric("vllm:generation_tokens_total") == before + count
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"):
        assert server.metric(f"vllm:{name}") == 0
    assert server.metric("vllm:time_to_first_token_seconds_count") == server.metric(
        "llmkit_time_to_first_token_seconds_count"
    )


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_is_killed_frees_its_place(server, stream):
    body = {**CHAT, "seed": LONG, "stream": stream}
    script = f"""
        import json, sys, urllib.request
        request = urllib.request.Request("{server.url}/v1/chat/completions", json.dumps({body!r}).encode(),
            {{"authorization": "Bearer {KEY}", "content-type": "application/json"}})
        response = urllib.request.urlopen(request)
        print(response.readline(), flush=True)
        while response.read(1): pass
    """
    client = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    assert client.stdout is not None
    try:
        if stream:
            assert client.stdout.readline()
        server.wait_for("llmkit_requests_running", 1)
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
    server.wait_for("llmkit_requests_running", 0)


def test_a_connection_that_ends_in_the_middle_of_its_body_harms_nobody(server: Server):
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\n"
        connection.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
    assert server.call("/v1/chat/completions", CHAT)[0] == 200
