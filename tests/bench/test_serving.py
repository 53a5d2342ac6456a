"""`llmkit bench serve`: the figures, by hand and from a server."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llmkit import cli
from llmkit.bench.goals import Goals, parse_goals
from llmkit.bench.lengths import Ask, Between, Traffic, parse_between, read_pairs
from llmkit.bench.load import Sent
from llmkit.bench.serving_figures import Run, figures, keeping_up, percentile
from llmkit.bench.sweep import saturation
from llmkit.errors import BenchError, ConfigError


def test_percentiles_lie_between_neighbours():
    assert percentile([4, 1, 3, 2], 50) == 2.5
    assert percentile([1, 2, 3], 90) == pytest.approx(2.8)
    assert percentile([5], 99) == 5
    assert percentile([], 50) is None


def test_figures_of_two_requests():
    # 3 tokens with the first after 1 s and the last after 3 s: 1 s between tokens
    sent = [Sent(0.0, [1.0, 3.0], 3), Sent(1.0, [3.0], 1), Sent(1.0, error="503: full")]
    found = figures([Run([Ask([1] * 10, 3)] * 3, sent, 4.0)], Goals())
    assert found["tokens_per_second"] == 1.0
    assert found["requests_per_second"] == 0.5
    assert found["input_tokens_per_second"] == 5.0
    assert found["time_to_first_token_seconds_p50"] == 1.5
    assert found["inter_token_latency_seconds_p50"] == 1.0
    assert found["request_seconds_mean"] == 2.5
    assert (found["num_failed"], found["errors"]) == (1, ["503: full"])


def test_nothing_but_failures_is_a_failure():
    with pytest.raises(BenchError, match="503: full"):
        figures([Run([Ask([1], 1)], [Sent(0.0, error="503: full")], 1.0)], Goals())


def test_goodput_counts_requests_that_kept_to_every_goal():
    # first tokens after 1, 1 and 3 seconds; 1, 3 and no seconds between tokens
    sent = [Sent(0.0, [1.0, 2.0], 2), Sent(0.0, [1.0, 4.0], 2), Sent(0.0, [3.0], 1), Sent(0.0, error="gone")]
    assert [parse_goals(["ttft=2", "itl=2"]).met_by(one) for one in sent] == [True, False, False, False]
    assert dict(Goals(itl=2.0).figures(sent, 2.0)) == {"goodput_requests_per_second": 1.0, "goodput_share": 0.5}
    assert not Goals().figures(sent, 2.0)


@pytest.mark.parametrize("text", ["ttft", "ttft=0", "ttft=x", "tpot=1"])
def test_a_goal_is_a_wait_and_seconds(text: str):
    with pytest.raises(ConfigError, match="--slo"):
        parse_goals([text])


def test_requests_that_pile_up_end_slower_than_they_come():
    sent = [Sent(start, [start + 1.0 + start], 1) for start in (0.0, 1.0, 2.0)]
    assert keeping_up(Run([], sent, 5.0)) == 0.5
    assert keeping_up(Run([], [Sent(start, [start + 9.0], 1) for start in (0.0, 1.0, 2.0)], 9.0)) == 1.0


def test_the_sweep_doubles_the_rate_and_then_halves_the_step():
    asked = []

    def measure_at(rate: float) -> dict[str, float]:
        asked.append(rate)
        return {"goodput_share": 1.0 if rate <= 5 else 0.5}

    assert saturation(measure_at, 1.0) == 5
    assert asked == [1, 2, 4, 8, 6, 5]
    assert saturation(measure_at, 6.0) is None


def test_requests_have_the_lengths_and_beginnings_asked_for(tmp_path):
    traffic = Traffic(Between(3, 5), Between(2, 2), prefix_tokens=4, num_prefixes=2, vocabulary=1000)
    asks = traffic.requests(40, seed=1)
    assert {len(ask.prompt) for ask in asks} == {7, 8, 9}
    assert {ask.output_tokens for ask in asks} == {2}
    assert len({tuple(ask.prompt[:4]) for ask in asks}) == 2
    assert len({tuple(ask.prompt[4:]) for ask in asks}) == 40
    assert traffic.requests(40, seed=1) == asks != traffic.requests(40, seed=2)
    file = tmp_path / "lengths.jsonl"
    file.write_text('{"input_tokens": 3, "output_tokens": 1}\n{"input_tokens": 9, "output_tokens": 7}\n')
    seen = Traffic(Between(1, 1), Between(1, 1), pairs=read_pairs(file)).requests(40, seed=1)
    assert {(len(ask.prompt), ask.output_tokens) for ask in seen} == {(3, 1), (9, 7)}
    file.write_text('{"input_tokens": 3, "output_tokens": 1}\n{"input_tokens": 0}\n')
    with pytest.raises(ConfigError, match=r"lengths.jsonl:2: give"):
        read_pairs(file)
    with pytest.raises(ConfigError, match="a range goes up"):
        parse_between("--input-tokens", "9-3")


def test_a_server_that_is_started_is_measured_and_stopped(tmp_path, capsys):
    plot = tmp_path / "serve.png"
    sizes = ["--input-tokens", "4", "--output-tokens", "4", "--requests", "6"]
    line = ["bench", "serve", "--serve-preset", "echo", "--set", "engine.script=[[70,71,72,73]]", *sizes]
    assert cli.run([*line, "--concurrency", "2", "--rate", "200", "--plot", str(plot), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in document["results"]] == ["serve/concurrency 2", "serve/rate 200/s"]
    for one in document["results"]:
        assert (one["num_succeeded"], one["num_output_tokens"]) == (6, 24)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_server_that_cannot_start_says_why(capsys):
    assert cli.run(["bench", "serve", "--serve-preset", "no-such-preset"]) == 1
    assert "no-such-preset" in capsys.readouterr().err


def test_a_sweep_beside_another_server_tells_ratios_goodput_and_a_page(tmp_path, capsys):
    sizes = ["--input-tokens", "2-4", "--output-tokens", "4", "--requests", "6", "--shared-prefix", "3"]
    started = ["--serve-preset", "echo", "--set", "engine.script=[[70,71,72,73]]"]
    page = tmp_path / "serve.html"
    with serving_echo() as url:
        line = ["bench", "serve", *started, "--compare", url, *sizes, "--concurrency", "2", "--repeats", "3"]
        line += ["--sweep", "--rate", "100", "--slo", "e2e=30", "--plot", str(page), "--json"]
        assert cli.run(line) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["ratios"][url]["concurrency 2 tokens_per_second"] > 0
    first = document["results"][0]
    assert (first["num_succeeded"], first["goodput_share"]) == (18, 1.0)
    assert first["spread"] >= 0
    highest = [one for one in document["results"] if one["name"].startswith("saturation/")]
    assert [one["settings"]["contender"] for one in highest] == ["llmkit", url]
    assert all(one["saturation_requests_per_second"] >= 100 for one in highest)
    text = page.read_text()
    assert "data:image/png;base64," in text
    assert "http://" not in text.replace(url, ""), "the page needs nothing from elsewhere"


@pytest.mark.parametrize("stream", [True, False])
def test_the_server_behind_is_asked_without_the_front_in_turn(stream: bool, capsys):
    sizes = ["--input-tokens", "4", "--output-tokens", "4", "--requests", "6", "--concurrency", "2", "--repeats", "2"]
    way = ["--stream" if stream else "--no-stream", "--compare", "direct", "--json"]
    with serving_echo() as url:
        started = ["--model", "builtin:tiny-untrained", "--engine", "openai", "--set", f"engine.urls=[{url}]"]
        assert cli.run(["bench", "serve", *started, *sizes, *way]) == 0
    document = json.loads(capsys.readouterr().out)
    front, direct = document["results"]
    assert [one["name"] for one in (front, direct)] == ["serve/concurrency 2", "serve/direct concurrency 2"]
    assert front["front_cpu_seconds_per_1000_tokens"] > 0
    assert "front_cpu_seconds_per_1000_tokens" not in direct
    assert [one["num_output_tokens"] for one in (front, direct)] == [48, 48]
    assert (front["inter_token_latency_seconds_p50"] is None) is not stream
    assert document["ratios"]["direct"]["concurrency 2 tokens_per_second"] > 0


def test_an_engine_in_the_process_has_no_server_behind(capsys):
    assert cli.run(["bench", "serve", "--serve-preset", "echo", "--compare", "direct"]) == 2
    assert "no servers are behind llmkit serve" in capsys.readouterr().err


def test_options_that_do_nothing_are_refused(capsys):
    for line, said in (
        (["--url", "http://127.0.0.1:1", "--serve-preset", "echo"], "--serve-preset is about a server"),
        (["--num-prefixes", "2"], "without --shared-prefix"),
        (["--python", "x"], "without --compare"),
        (["--python", "x", "--compare", "direct"], "without --compare vllm or sglang"),
        (["--url", "http://127.0.0.1:1", "--compare", "direct"], "name its address instead"),
        (["--sweep", "--rate", "1", "--rate", "2"], "begins with one --rate"),
        (["--slo", "ttft"], "seconds above 0"),
        (["--input-tokens", "many"], "give a number of tokens"),
        (["--compare", "native", "--serve-preset", "echo"], "is no server of its own"),
    ):
        assert cli.run(["bench", "serve", *line]) == 2, line
        assert said in capsys.readouterr().err


@contextmanager
def serving_echo() -> Iterator[str]:
    command = [sys.executable, "-m", "llmkit", "serve", "--preset", "echo", "--port", "0", "--json"]
    command += ["--set", "engine.script=[[70,71,72,73]]"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout is not None
            yield json.loads(process.stdout.readline())["url"]
        finally:
            process.terminate()
