"""Servers that one process starts and several ask."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmkit.distributed.launch import worker_environment
from llmkit.distributed.place import Place
from llmkit.distributed.world import World
from llmkit.engines.inference.remote.contract import Server
from llmkit.errors import ConfigError
from llmkit.train import shared_servers

NUM_PROCESSES = 3
SECONDS = 120


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of three processes has found."""
    out = tmp_path_factory.mktemp("sharing")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    read, write = os.pipe()
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.train.sharing", str(out)],
            cwd=Path(__file__).parents[2],
            env={**worker_environment(os.environ, rank, NUM_PROCESSES, port, read), "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(NUM_PROCESSES)
    ]
    for process in processes:
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
    os.close(read)
    os.close(write)
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(NUM_PROCESSES)]


def test_all_ask_the_servers_that_the_first_has_started(ranks: list[dict[str, Any]]):
    for found in ranks[1:]:
        assert found["servers"] == [["http://127.0.0.1:8001", "secret"], ["http://127.0.0.1:8002", None]]
        assert found["starts"] == [1, 1]


def test_all_know_the_new_version_and_its_adapter_once_the_weights_are_there(ranks: list[dict[str, Any]]):
    for found in ranks[1:]:
        assert (found["loads"], found["adapter"]) == ([3], "policy-3")


def test_nobody_asks_a_server_that_was_started_again_before_it_has_its_weights(ranks: list[dict[str, Any]]):
    for found in ranks[1:]:
        assert found["started again"] == 2
        assert found["not yet"] == "http://127.0.0.1:8002: waits for its weights from the first process"
        assert found["brought"] == "restored"


def test_all_hear_that_a_server_is_gone(ranks: list[dict[str, Any]]):
    assert [found["gone"] for found in ranks[1:]] == ["it crashed too often"] * 2


def test_weights_that_are_lost_are_an_error_in_every_process(ranks: list[dict[str, Any]]):
    assert [found["error"] for found in ranks] == ["EngineError: sending weights: version 4 was lost"] * 3


@pytest.mark.parametrize(("url", "fits"), [("http://127.0.0.1:8000", False), ("http://10.0.0.7:8000", True)])
def test_servers_must_be_within_reach_of_all_machines(url: str, fits: bool, monkeypatch: pytest.MonkeyPatch):
    place = Place(rank=0, world_size=4, local_rank=0, local_world_size=2)
    monkeypatch.setattr(shared_servers, "world", lambda: World(place))
    servers = [Server(0, url, "m")]
    if fits:
        shared_servers.check_reach(servers)
        return
    with pytest.raises(ConfigError, match=r"several machines, and http://127\.0\.0\.1:8000 .* engine\.urls"):
        shared_servers.check_reach(servers)
