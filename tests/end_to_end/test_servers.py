"""GRPO over real servers, as `make test-engines` runs it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmkit import cli, plugins
from llmkit.engines.servers.environments import find_program
from llmkit.errors import ConfigError, PluginError

from .conftest import Command, read_metrics
from .test_brought_weights import SHARE, versions
from .test_resume import wait_for_step

pytestmark = pytest.mark.engines

SECONDS = 280
SMALL = ["--prompts-per-step", 4, "--group-size", 4, "--max-new-tokens", 24, "--max-length", 320, "--threads", 1]
PROBLEMS = ["--model", "builtin:tiny-untrained", "--set", "dataset={name: arithmetic, size: 64, max_steps: 1}"]
LEARNS = ["--learning-rate", "1e-2", "--reward", "share", "--checkpoint-every", 2]
QUICK = {"vllm": ["--set", "engine.eager=true"], "sglang": []}
"""SGLang compiles nothing on a CPU."""
GRPO = ["train", "grpo", *PROBLEMS, *SMALL, *LEARNS]
RATIO = 1e-3
"""Most that a token's probability differs by between trainer and server: other kernels of the same precision. A step's
weights that did not arrive make it tens of times as much."""


def engine_here(name: str) -> str:
    """An engine whose environment is here; skips where it is not."""
    try:
        front: Any = plugins.load("engines", name)
        find_program(front.PROGRAM, None)
    except (ConfigError, PluginError) as error:
        pytest.skip(str(error))
    return name


@pytest.fixture(params=["vllm", "sglang"])
def engine(request: pytest.FixtureRequest, fake_package: Any) -> str:
    """An engine whose environment is here, and a reward to learn from."""
    fake_package("llmkit-share", {"rewards": {"share": "share"}}, {"share.py": SHARE})
    return engine_here(request.param)


@pytest.fixture
def grpo(engine: str) -> list[object]:
    """A command line that trains over servers, and needs `--max-steps`."""
    return [*GRPO, "--engine", engine, "--set", "engine.dtype=float32", *QUICK[engine]]


def finish(*arguments: object) -> None:
    assert cli.run([str(argument) for argument in arguments]) == 0


def rollouts(run: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts" / f"step-{step:05d}.jsonl").read_text().splitlines()]


def sources(run: Path, step: int) -> list[str]:
    """The rows of a step's prompts, in order."""
    return list(dict.fromkeys(one["source"] for one in rollouts(run, step)))


def check(run: Path, num_steps: int) -> None:
    """Every step is whole, with tokens of the weights before it, which the trainer sees as the servers did."""
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == list(range(1, num_steps + 1))
    for row in rows:
        for name in ("p01", "p50", "p99", "max"):
            assert row[f"logprob_mismatch_ratio_{name}"] == pytest.approx(1.0, abs=RATIO)
        assert row["staleness_max"] == 0
        assert row["grad_norm"] > 0
        assert versions(run, row["step"]) == {row["step"] - 1}
        found = rollouts(run, row["step"])
        assert [one["group_id"] for one in found] == [group for group in range(4) for _ in range(4)]
        assert len(sources(run, row["step"])) == 4


def servers_of(pid: int) -> list[psutil.Process]:
    """Server programs among a process's descendants: those that listen."""
    return [
        one
        for one in psutil.Process(pid).children(recursive=True)
        if one.net_connections("tcp") and "--port" in one.cmdline()
    ]


def wait_until_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, timeout=60)
    assert alive == []


def test_five_steps_learn_with_the_weights_of_each_step(grpo: list[object], tmp_path: Path):
    out = tmp_path / "run"
    finish(*grpo, "--max-steps", 5, "--output-dir", out)
    check(out, 5)
    assert [path.suffix for path in (out / "servers").iterdir()] == [".log"]
    assert psutil.Process().children(recursive=True) == []


def test_an_adapter_is_all_that_travels(grpo: list[object], tmp_path: Path):
    out = tmp_path / "run"
    finish(*grpo, "--adapter", "lora", "--max-steps", 5, "--output-dir", out)
    check(out, 5)
    (log,) = (out / "servers").glob("*.log")
    assert "lora" in log.read_text().lower()


@pytest.mark.slow
def test_two_processes_ask_the_servers_of_the_first(grpo: list[object], llmkit: Command, tmp_path: Path):
    out = tmp_path / "run"
    llmkit.run(*grpo, "--max-steps", 3, "--nproc", 2, "--output-dir", out)
    check(out, 3)
    assert len(list((out / "servers").glob("*.log"))) == 1


@pytest.mark.slow
def test_a_server_killed_in_mid_rollout_costs_no_rollout(grpo: list[object], llmkit: Command, tmp_path: Path):
    out = tmp_path / "run"
    long = ["--max-new-tokens", 200, "--set", "eval.max_rows=1"]
    process = llmkit.start([*grpo, *long, "--dp", 2, "--max-steps", 5, "--output-dir", out])
    wait_for_step(out, 2, process)
    servers = servers_of(process.pid)
    assert len(servers) == 2
    os.kill(servers[1].pid, signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    check(out, 5)


@pytest.mark.slow
def test_a_trainer_killed_goes_on_with_new_servers(grpo: list[object], llmkit: Command, tmp_path: Path):
    out, whole = tmp_path / "run", tmp_path / "whole"
    finish(*GRPO, "--engine", "native", "--max-steps", 6, "--output-dir", whole)
    process = llmkit.start([*grpo, "--max-steps", 6, "--output-dir", out])
    wait_for_step(out, 3, process)
    started = psutil.Process(process.pid).children(recursive=True)
    assert servers_of(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_gone(started)
    llmkit.run("train", "grpo", "--resume", "--output-dir", out)
    check(out, 6)
    for step in range(1, 7):
        assert sources(out, step) == sources(whole, step)
