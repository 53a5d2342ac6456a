"""`llmkit serve --engine vllm --tp 2` with the real vLLM."""

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


def test_a_model_is_served_by_two_processes_and_none_is_left_when_llmkit_is_killed(tmp_path):
    if remembered("vllm") is None:
        pytest.skip("vLLM is not installed: `make test-engines` or `llmkit engines install vllm`")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("two cores are needed")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    mark = f"served-by-{port}"
    command = [
        sys.executable, "-m", "llmkit", "serve", "--engine", "vllm", "--model", "builtin:tiny", "--tp", "2", "--port",
        str(port), "--max-model-len", "256", "--json", "--set", f"engine.served_name={mark}", "--set",
        "engine.cache_memory_gb=1", "--set", f"engine.log_dir={tmp_path}", "--set", "engine.eager=true", "--",
        "--max-logprobs", "5",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as llmkit:
        assert llmkit.stdout is not None
        assert llmkit.stderr is not None
        ready = llmkit.stdout.readline()
        assert ready, llmkit.stderr.read()
        url = json.loads(ready)["url"]
        answer = post(f"{url}/v1/completions", {"model": "builtin:tiny", "prompt": "6*7=", "max_tokens": 8, "seed": 1})
        assert answer["usage"]["completion_tokens"] > 0
        assert len(processes_with(mark)) >= 2  # the guard and the server
        llmkit.send_signal(signal.SIGKILL)
    end = time.monotonic() + 60
    while processes_with(mark):
        assert time.monotonic() < end, processes_with(mark)
        time.sleep(0.2)
    assert "tensor_parallel_size': 2" in (tmp_path / "vllm-0.log").read_text()
