"""The official Node client of OpenAI against a server of ours."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.serve.conftest import KEY, MODEL

SCRIPT = Path(__file__).parent / "node" / "client.mjs"


@pytest.mark.slow
def test_the_node_client(server, tmp_path):
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("there is no Node here")
    install = [npm, "install", "--silent", "--no-fund", "--no-audit", "--prefix", str(tmp_path), "openai"]
    if subprocess.run(install, capture_output=True, timeout=180, check=False).returncode:
        pytest.skip("npm cannot install the client: no network?")
    script = shutil.copy(SCRIPT, tmp_path)
    done = subprocess.run(
        [node, script, server.url, KEY, MODEL], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    usage = found.pop("usage")
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert found.pop("logprobs") > 3
    assert found == {
        "models": [MODEL, "also"],
        "plain": "Hello there, world!",
        "streamed": "Grüße aus 東京 🙂",
        "several": ["Hello there, world!", "It is 4."],
        "stopped": "Hello the",
        "calls": [{"name": "weather", "arguments": '{"city": "Rom"}'}, {"name": "clock", "arguments": "{}"}],
        "streamedCalls": ["weather", "clock"],
        "required": "weather",
        "structured": {"city": "Oslo"},
        "errors": [400, 401, 404, 413],
        "left": "assistant",
    }
    server.wait_for("llmkit_requests_running", 0)
