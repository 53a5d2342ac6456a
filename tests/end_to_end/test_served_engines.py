"""`llmkit serve` before real servers, as `make test-engines` runs it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from llmkit.engines.servers.environments import remembered

pytestmark = pytest.mark.engines

SECONDS = 600
SAME = 1e-4
"""Nats by which the log-probability of one token after one prompt may differ."""
SETTINGS = {
    "vllm": (["--set", "engine.eager=true"], ["--max-logprobs", "5"], "tensor_parallel_size': 2"),
    "sglang": ([], ["--watchdog-timeout", "299"], "tp_size': 2"),
}
"""Of each engine: settings for a quick start, an argument of its own, and what its log says of two processes."""


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


def processes_with(text: str) -> list[str]:
    """Command lines of this machine's processes that have a text in them."""
    lines: list[str] = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended meanwhile
    return [line for line in lines if text in line]


def check_logprobs(url: str, name: str) -> None:
    """Clients get the model's own log-probabilities: those of the first token are the same at every temperature."""
    body = {"model": name, "prompt": "6*7=", "max_tokens": 1, "logprobs": 3}
    found = [
        post(f"{url}/v1/completions", body | {"temperature": temperature})["choices"][0]["logprobs"]["top_logprobs"][0]
        for temperature in (0.5, 1.0, 1.5)
    ]
    likeliest = [max(top.values()) for top in found]
    assert likeliest == pytest.approx([likeliest[0]] * 3, abs=SAME)


@pytest.mark.parametrize("engine", SETTINGS)
def test_a_model_is_served_by_two_processes_and_none_is_left_when_llmkit_is_killed(engine: str, tmp_path: Path):
    if remembered(engine) is None:
        pytest.skip(f"{engine} is not installed: `make test-engines` or `llmkit engines install {engine}`")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two cores are needed")
    settings, own, said = SETTINGS[engine]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    mark = f"served-by-{port}"
    command = [
        sys.executable, "-m", "llmkit", "serve", "--engine", engine, "--model", "builtin:tiny", "--tp", "2", "--port",
        str(port), "--max-model-len", "256", "--json", "--set", f"engine.served_name={mark}", "--set",
        "engine.cache_memory_gb=1", "--set", f"engine.log_dir={tmp_path}", *settings, "--", *own,
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as llmkit:
        assert llmkit.stdout is not None
        assert llmkit.stderr is not None
        ready = llmkit.stdout.readline()
        assert ready, llmkit.stderr.read()
        try:
            url = json.loads(ready)["url"]
            body = {"model": "builtin:tiny", "prompt": "6*7=", "max_tokens": 8, "seed": 1}
            assert post(f"{url}/v1/completions", body)["usage"]["completion_tokens"] > 0
            check_logprobs(url, "builtin:tiny")
            assert len(processes_with(mark)) >= 2  # the guard and the server
        finally:
            llmkit.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while processes_with(mark):
        assert time.monotonic() < end, processes_with(mark)
        time.sleep(0.2)
    assert said in (tmp_path / f"{engine}-0.log").read_text()
