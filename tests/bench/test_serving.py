"""`llmkit bench serve`: the figures, by hand and from a server."""

import json

import pytest

from llmkit import cli
from llmkit.bench.load import Sent
from llmkit.bench.serving import figures, percentile
from llmkit.errors import BenchError


def test_percentiles_lie_between_neighbours():
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([1, 2, 3], 90) == pytest.approx(2.8)
    assert percentile([5], 99) == 5
    assert percentile([], 50) is None


def test_figures_of_two_requests():
    # 3 tokens with the first after 1 s and the last after 3 s: 1 s between tokens
    sent = [Sent(0.0, [1.0, 3.0], 3), Sent(1.0, [3.0], 1), Sent(1.0, error="503: full")]
    found = figures(sent, 4.0, input_tokens=10)
    assert found["tokens_per_second"] == 1.0
    assert found["requests_per_second"] == 0.5
    assert found["input_tokens_per_second"] == 5.0
    assert found["time_to_first_token_seconds_p50"] == 1.5
    assert found["inter_token_latency_seconds_p50"] == 1.0
    assert found["request_seconds_mean"] == 2.5
    assert (found["num_failed"], found["errors"]) == (1, ["503: full"])


def test_nothing_but_failures_is_a_failure():
    with pytest.raises(BenchError, match="503: full"):
        figures([Sent(0.0, error="503: full")], 1.0, input_tokens=1)


def test_a_server_that_is_started_is_measured_and_stopped(tmp_path, capsys):
    plot = tmp_path / "serve.png"
    sizes = ["--input-tokens", "4", "--output-tokens", "4", "--requests", "6"]
    line = ["bench", "serve", "--preset", "echo", "--set", "engine.script=[[70,71,72,73]]", *sizes]
    assert cli.run([*line, "--concurrency", "2", "--rate", "200", "--plot", str(plot), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["results"]] == ["serve/concurrency 2", "serve/rate 200/s"]
    for one in document["results"]:
        assert (one["num_succeeded"], one["num_output_tokens"]) == (6, 24)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_server_that_cannot_start_says_why(capsys):
    assert cli.run(["bench", "serve", "--preset", "no-such-preset"]) == 1
    assert "no-such-preset" in capsys.readouterr().err
