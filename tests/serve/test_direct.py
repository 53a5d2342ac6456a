"""`llmkit serve --direct`: the engine's own server at llmkit's port, here a small program that plays one."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from llmkit.config.resolve import resolve
from llmkit.config.serving import ServeRun
from llmkit.errors import ConfigError
from llmkit.serve.direct import program_of, server_settings

SERVER = Path(__file__).parents[1] / "engines" / "servers" / "small_server.py"
FRONT = f'''
"""A small server program."""
from llmkit.config.servers import ServerEngineConfig
from llmkit.engines.servers.program import Flag, Program, Variable
PROGRAM = Program(
    name="small", title="Small", command=("{{python}}", {str(SERVER)!r}),
    options={{"model": (Variable("MODEL"),), "port": (Flag("--port"),), "served_name": (Flag("--name"),),
              "api_key": (Flag("--api-key"),), "chat_template": (Variable("TEMPLATE"),), "tp": (Variable("TP"),)}},
)
class Config(ServerEngineConfig):
    """Small."""
def build(config, context):
    raise AssertionError("--direct needs no engine in this process")
'''
SECONDS = 120


@pytest.fixture
def port() -> int:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        return holder.getsockname()[1]


@pytest.fixture
def arguments(fake_package, port, tmp_path) -> list[str]:
    fake_package("acme", {"engines": {"small": "acme"}}, {"acme.py": FRONT})
    return [
        sys.executable, "-m", "llmkit", "serve", "--engine", "small", "--direct", "--port", str(port), "--model",
        "builtin:tiny-untrained", "--set", f"engine.python={sys.executable}", "--set", f"engine.log_dir={tmp_path}",
    ]  # fmt: skip


def get(url: str, key: str | None = None) -> dict:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        return json.load(answer)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_engines_own_server_has_the_port_until_a_signal(arguments, port, tmp_path, number):
    more = ["--json", "--served-name", "poet", "--chat-template", "chatml", "--", "--pids", str(tmp_path / "pids")]
    environment = os.environ | {"LLMKIT__AUTH__KEYS": "[sk-1]"}
    with subprocess.Popen(arguments + more, stdout=subprocess.PIPE, env=environment, text=True) as llmkit:
        assert llmkit.stdout is not None
        with llmkit.stdout:
            document = json.loads(llmkit.stdout.readline())
            assert document == {
                "url": f"http://127.0.0.1:{port}", "models": ["poet"], "engine": "small", "needs_key": True,
                "servers": [f"http://127.0.0.1:{port}"],
            }  # fmt: skip
            assert get(f"{document['url']}/v1/models", "sk-1") == {"data": [{"id": "poet"}]}
            environment = get(f"{document['url']}/environment")
            assert environment["TP"] == "1"
            assert "<|im_start|>" in Path(environment["TEMPLATE"]).read_text()
            llmkit.send_signal(number)
            assert llmkit.wait(SECONDS) == 0
    (pid,) = (tmp_path / "pids").read_text().split()
    assert not Path(f"/proc/{pid}").exists()
    assert not Path(environment["TEMPLATE"]).exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine.dp": 2}, r"server\.direct hands one port through, and engine\.dp=2 needs llmkit's own"),
        ({"engine.urls": ["http://h"]}, r"and engine\.urls=\['http://h'\] needs llmkit's own"),
        ({"auth.keys_file": "keys.json"}, r"auth\.keys_file holds hashes that llmkit alone can check"),
        ({"auth.keys": ["a"], "engine.api_key": "b"}, "takes one API key, and there are 2"),
        ({"server.served_names": ["a", "b"]}, "the engine's server has one name for the model"),
        ({"adapters.poet": "adapter"}, "name them with the engine's own flags behind --"),
    ],
)
def test_what_the_engines_server_cannot_have_is_refused(arguments, settings, words):
    options = {"engine.name": ("--engine", "small")} | {key: ("--set", value) for key, value in settings.items()}
    run = resolve(ServeRun, command="serve", options=options).run
    with pytest.raises(ConfigError, match=words):
        server_settings(run)


def test_an_engine_in_this_process_has_no_server_to_hand_through():
    run = resolve(ServeRun, command="serve", options={"engine.name": ("--engine", "echo")}).run
    with pytest.raises(ConfigError, match=r"the engine 'echo' has no server of its own; leave it out"):
        program_of(run)


def test_settings_of_llmkits_own_front_are_named_as_without_effect(arguments, port):
    more = ["--set", "limits.max_requests=3", "--set", "server.cors_origins=[a]", "--", "--fault", "crashes"]
    done = subprocess.run(arguments + more, capture_output=True, text=True, timeout=SECONDS)
    assert done.returncode == 1
    assert (
        "server.direct leaves requests to Small: server.cors_origins, limits.max_requests has no effect" in done.stderr
    )
    assert "error: Small (http://127.0.0.1:" in done.stderr
    assert "  | ValueError: the tokenizer is of another planet" in done.stderr


def test_a_server_that_crashes_too_often_ends_the_command(arguments, port, tmp_path):
    more = ["--json", "--set", "engine.max_restarts=0"]
    with subprocess.Popen(arguments + more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as llmkit:
        assert llmkit.stdout is not None
        url = json.loads(llmkit.stdout.readline())["url"]
        with pytest.raises(OSError, match=r"closed|reset|refused"):
            get(f"{url}/crash")
        _, errors = llmkit.communicate(timeout=SECONDS)
        assert llmkit.returncode == 1
    assert "SIGKILL, which the system sends when memory runs out" in errors


def test_a_dry_run_shows_the_command_without_starting_it(arguments, port):
    done = subprocess.run(
        [*arguments, "--dry-run", "--json", "--tp", "2", "--", "--fault", "hangs"],
        capture_output=True, text=True, timeout=SECONDS, env=os.environ | {"LLMKIT__AUTH__KEYS": "[sk-1]"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (command,) = json.loads(done.stdout)["commands"]
    assert "TP=2" in command
    assert command.endswith("--fault hangs")
    assert f"--port {port}" in command
    assert "sk-1" not in command
