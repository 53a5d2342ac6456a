"""`llmkit rollout` over real servers, as `make test-engines` runs it."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from .conftest import Command
from .test_rollout import rollouts, wait_for_lines
from .test_servers import QUICK, engine_here, servers_of, wait_until_gone

pytestmark = pytest.mark.engines

ROWS, GROUP, LENGTH = 12, 3, 100
SECONDS = 280


@pytest.fixture(params=["vllm", "sglang"])
def rollout(request: pytest.FixtureRequest) -> list[object]:
    """A command line that draws three completions of each of twelve problems, into `out`."""
    engine = engine_here(request.param)
    problems = ["--set", f"dataset={{name: arithmetic, size: {ROWS}, max_steps: 1}}", "--reward", "gsm8k"]
    sizes = ["--group-size", GROUP, "--max-new-tokens", LENGTH, "--set", "data.max_length=320"]
    model = ["--model", "builtin:tiny-untrained", "--engine", engine, *QUICK[engine]]
    return ["rollout", *model, *problems, *sizes, "--output-dir", "out"]


def check(directory: Path) -> None:
    """Every rollout is there once, with all that is known of its tokens."""
    found = rollouts(directory / "out")
    assert sorted(found) == [(group, member) for group in range(ROWS) for member in range(GROUP)]
    for line in found.values():
        count = len(line["completion_ids"])
        assert 0 < count == len(line["logprobs"]) == len(line["versions"]) <= LENGTH
        assert all(logprob <= 0 for logprob in line["logprobs"])
        assert set(line["versions"]) == {0}
        assert line["rewards"] == {"gsm8k": line["reward"]}
    assert len({tuple(line["completion_ids"]) for line in found.values()}) > ROWS


def test_every_rollout_comes_from_the_server(rollout: list[object], llmkit: Command, tmp_path: Path):
    out, _ = llmkit.run(*rollout, "--json")
    check(tmp_path)
    summary = json.loads(out)
    assert (summary["num_rollouts"], summary["num_failed"]) == (ROWS * GROUP, 0)
    assert [path.suffix for path in (tmp_path / "out" / "servers").iterdir()] == [".log"]


@pytest.mark.slow
def test_a_server_killed_meanwhile_costs_no_rollout(rollout: list[object], llmkit: Command, tmp_path: Path):
    process = llmkit.start([*rollout, "--dp", 2, "--concurrency", 4])
    wait_for_lines(process, tmp_path / "out" / "rollouts.jsonl", 2)
    servers = servers_of(process.pid)
    assert len(servers) == 2
    os.kill(servers[1].pid, signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    check(tmp_path)


@pytest.mark.slow
def test_killed_itself_it_leaves_no_server_and_goes_on_where_it_was(
    rollout: list[object], llmkit: Command, tmp_path: Path
):
    lines = tmp_path / "out" / "rollouts.jsonl"
    process: Any = llmkit.start([*rollout, "--concurrency", 2])
    wait_for_lines(process, lines, GROUP)
    started = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    wait_until_gone(started)
    num_done = lines.read_bytes().count(b"\n")
    assert GROUP <= num_done < ROWS * GROUP, "too late to show anything"
    llmkit.run("rollout", "--resume", "--output-dir", "out")
    check(tmp_path)
