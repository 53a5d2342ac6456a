"""`llmkit bench weights`: what is refused, and, with real servers, what it finds."""

import json
from typing import get_args

import pytest

from llmkit import cli, plugins
from llmkit.bench.weights_cli import Transport
from llmkit.config.weight_sync import TransportName
from llmkit.engines.servers.environments import find_program
from llmkit.errors import ConfigError, PluginError


def test_every_way_of_the_settings_can_be_measured():
    assert {"auto", *Transport} == set(get_args(TransportName))


def test_engines_without_servers_take_no_weights(capsys):
    assert cli.run(["bench", "weights", "--engine", "native"]) == 2
    assert "--engine native: no servers that take a trainer's weights" in capsys.readouterr().err


def test_settings_are_checked_before_anything_is_made(capsys):
    if not plugins.is_installed("engines", "vllm"):
        pytest.skip("llmkit-vllm is not installed")
    assert cli.run(["bench", "weights", "--model", "5m", "--set", "engine.tpp=2"]) == 2
    assert "--set engine.tpp: unknown key. Did you mean 'tp'?" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_refused_before_a_server_starts(capsys):
    if not plugins.is_installed("engines", "vllm"):
        pytest.skip("llmkit-vllm is not installed")
    assert cli.run(["bench", "weights", "--model", "no-such-model"]) == 2
    assert "--model no-such-model: no directory with a model; shapes: 5m" in capsys.readouterr().err


@pytest.mark.engines
@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_real_servers_are_timed_by_each_way(engine: str, tmp_path, capsys):
    try:
        find_program(plugins.load("engines", engine).PROGRAM, None)
    except (ConfigError, PluginError) as error:
        pytest.skip(str(error))
    plot = tmp_path / "weights.png"
    ways = ["--transport", "shared_memory", "--transport", "adapter", "--lora-rank", "8"]
    ways += ["--set", "engine.eager=true"] if engine == "vllm" else []  # SGLang compiles nothing on a CPU
    line = ["bench", "weights", "--engine", engine, "--model", "5m", *ways, "--repeats", "2"]
    assert cli.run([*line, "--plot", str(plot), "--json"]) == 0
    whole, adapter = json.loads(capsys.readouterr().out)["results"]
    assert [whole["name"], adapter["name"]] == ["weights/shared_memory", "weights/adapter"]
    assert 0 < adapter["num_bytes"] < whole["num_bytes"]
    assert whole["settings"]["engine"] == engine
    for one in (whole, adapter):
        assert one["seconds_min"] <= one["seconds"] <= one["seconds_max"]
        assert one["first_seconds"] > 0
    assert plot.read_bytes().startswith(b"\x89PNG")
