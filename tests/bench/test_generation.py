import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from llmkit.bench.cli import app
from llmkit.bench.generation_metrics import latency_metrics, percentiles, repeat_metrics, throughput_metrics
from llmkit.bench.peers.prompts import digests, make_prompts
from llmkit.errors import ConfigError
from llmkit.testing.tiny import tiny_model


def test_percentiles_lie_between_the_values_that_are_there():
    found = percentiles("x", [4.0, 1.0, 3.0, 2.0, 5.0])
    assert found == pytest.approx({"x_p50": 3.0, "x_p90": 4.6, "x_p99": 4.96})
    assert percentiles("x", []) == {"x_p50": None, "x_p90": None, "x_p99": None}


def test_tokens_per_second_and_the_share_of_the_memory_that_reading_weights_takes():
    answers = [
        {"seconds": seconds, "cpu_seconds": seconds / 2, "num_tokens": 800, "weight_bytes": 10**7}
        for seconds in (4.0, 2.0, 1.0)
    ]
    found = throughput_metrics(answers, concurrency=8, memory_gbps=10.0)
    assert found["tokens_per_second"] == 400
    assert found["tokens_per_cpu_second"] == 800
    # 50 passes a second over 10 MB are 0.5 GB/s of 10 GB/s.
    assert found["weight_bandwidth_share"] == pytest.approx(0.05)


def test_latency_takes_all_runs_together_and_a_repeated_prompt_is_a_share_of_the_first():
    answers = [{"first_seconds": [1.0, 2.0], "gaps": [0.1]}, {"first_seconds": [3.0], "gaps": [0.3]}]
    found = latency_metrics(answers, concurrency=2, memory_gbps=10.0)
    assert found["time_to_first_token_seconds_p50"] == 2.0
    assert found["inter_token_latency_seconds_p50"] == pytest.approx(0.2)
    repeated = [{"first_seconds": 2.0, "again_seconds": 0.1}, {"first_seconds": 4.0, "again_seconds": 0.3}]
    assert repeat_metrics(repeated)["repeated_share"] == pytest.approx(0.2 / 3)


def test_everyone_gets_the_same_prompts():
    assert make_prompts(2, 5, 100) == make_prompts(2, 5, 100)
    assert len({tuple(prompt) for prompt in make_prompts(8, 5, 100)}) == 8
    assert digests([[1, 2]]) == digests([[1, 2]]) != digests([[12]])


def test_throughput_beside_generate_writes_what_it_found(tmp_path: Path):
    found, plot = tmp_path / "found.json", tmp_path / "found.png"
    options = ["--model", tiny_model(), "--concurrency", "2", "--prompt-tokens", "20", "--new-tokens", "4"]
    outcome = CliRunner().invoke(
        app,
        [
            "throughput",
            *options,
            "--dtype",
            "float32",
            "--compare",
            "hf",
            "--repeats",
            "1",
            "--output",
            str(found),
            "--plot",
            str(plot),
        ],
    )
    assert outcome.exit_code == 0, outcome.output
    document: dict[str, Any] = json.loads(found.read_text())
    assert [result["name"] for result in document["results"]] == ["throughput/llmkit", "throughput/hf"]
    assert all(result["tokens_per_second"] > 0 for result in document["results"])
    assert list(document["ratios"]) == ["hf"]
    assert plot.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "17m"], "--model 17m: no directory with a model; shapes: 5m, 20m"),
        (["--compare", "vllm"], "--compare vllm needs --python PATH"),
        (["--python", "x"], "--python x has no effect without --compare vllm"),
        (["--compare", "vllm", "--python", "/nowhere/python"], "no such file"),
        (["--threads", "4096"], "--threads 4096: this process may use"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: list[str], message: str):
    outcome = CliRunner().invoke(app, ["latency", *options])
    assert isinstance(outcome.exception, ConfigError)
    assert message in str(outcome.exception)
