"""`--nproc`: whole commands in several processes. They compute what one process computes, and end together."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

from .conftest import Command, Run, read_metrics

APART = ("_seconds", "_per_second", "peak_memory_bytes")
SMALL = ["--device", "cpu", "--threads", 1, "--max-steps", 4, "--checkpoint-every", 2, "--learning-rate", 1e-3]
SMALL += ["--set", "optim.optimizer.eps=1e-3"]
SECONDS = 120


@pytest.fixture
def settings(model: str, chats: Path) -> list[object]:
    """Five rows per step, which do not divide by two, in several micro-batches."""
    rows = ["--rows-per-step", 5, "--set", "batch.tokens_per_micro_batch=40", "--max-length", 96]
    held_out = ["--set", "data.validation_fraction=0.2", "--eval-every", 2]
    data = ["--dataset", "files", "--dataset-path", chats]
    return ["train", "sft", "--model", model, *data, *SMALL, *rows, *held_out]


def check_same(found: Path, expected: Path, step: int = 4) -> None:
    """Metrics and exported weights are equal to rounding."""
    for ours, theirs in zip(read_metrics(found), read_metrics(expected), strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            if not name.endswith(APART):
                assert ours[name] == pytest.approx(value, abs=1e-5, rel=1e-5), name
    exported = [
        safetensors.torch.load_file(run / "checkpoints" / f"step-{step}" / "model.safetensors")
        for run in (found, expected)
    ]
    assert exported[0].keys() == exported[1].keys()
    for name, tensor in exported[1].items():
        torch.testing.assert_close(exported[0][name], tensor, atol=1e-5, rtol=0)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_text().splitlines()) > step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    raise AssertionError(f"step {step} did not come")


def children(process: subprocess.Popen[str]) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return sorted(int(line) for line in found.stdout.split())


def is_alive(pid: int) -> bool:
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(found) and not found.startswith("Z")


def test_divided_weights_train_and_export_what_one_process_does_and_resume_in_one(
    settings: list, run: Run, llmkit: Command, tmp_path: Path
):
    one, two = tmp_path / "one", tmp_path / "two"
    run(*settings, "--output-dir", one)
    out, err = llmkit.run(*settings, "--nproc", 2, "--set", "parallel.strategy=fsdp", "--json", "--output-dir", two)
    assert json.loads(out)["num_steps"] == 4
    check_same(two, one)
    shards = two / "checkpoints" / "step-2" / "trainer" / "shards"
    assert sorted(path.name for path in shards.glob("*.distcp")) == ["__0_0.distcp", "__1_0.distcp"]
    assert err.count("step 4/4") == 1
    # Back to the second step, and on in one process.
    for path in (two / "checkpoints" / "step-4").rglob("*"):
        if path.is_file():
            path.unlink()
    run("train", "sft", "--resume", "--output-dir", two, "--set", "parallel.strategy=auto")
    check_same(two, one)


@pytest.mark.slow
@pytest.mark.parametrize("first", [["--nproc", 2, "--set", "parallel.strategy=fsdp"], []])
def test_a_run_goes_on_in_three_processes(first: list, settings: list, llmkit: Command, tmp_path: Path):
    one, other = tmp_path / "one", tmp_path / "other"
    llmkit.run(*settings, "--output-dir", one)
    llmkit.run(*settings, *first, "--output-dir", other)
    for path in (other / "checkpoints" / "step-4").rglob("*"):
        if path.is_file():
            path.unlink()
    resume = ["train", "sft", "--resume", "--output-dir", other, "--nproc", 3]
    llmkit.run(*resume, "--set", "parallel.strategy=fsdp")
    check_same(other, one)


@pytest.mark.slow
def test_torchrun_starts_it_too(settings: list, llmkit: Command, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    llmkit.run(*settings, "--output-dir", one)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "llmkit"]
    done = subprocess.run(
        [*command, *map(str, settings), "--output-dir", str(two)],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=SECONDS * 3,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("step 4/4") == 1
    check_same(two, one)


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["parallel.strategy=ddp", "parallel.strategy=fsdp"])
def test_reinforcement_learning_draws_the_same_rollouts(parallel: str, grpo: list, llmkit: Command, tmp_path: Path):
    one, two = tmp_path / "one", tmp_path / "two"
    settings = [*grpo, *SMALL, "--prompts-per-step", 3, "--set", "algorithm.max_sampling_rounds=2"]
    held_out = ["--set", "eval_dataset={name: arithmetic, split: test, size: 3}"]
    llmkit.run(*settings, *held_out, "--output-dir", one)
    llmkit.run(*settings, *held_out, "--nproc", 2, "--set", parallel, "--output-dir", two)
    check_same(two, one)
    for path in (one / "rollouts").iterdir():
        assert (two / "rollouts" / path.name).read_text() == path.read_text()


def test_a_killed_process_ends_the_run(settings: list, llmkit: Command, tmp_path: Path):
    process = llmkit.start([*settings, "--max-steps", 5000, "--nproc", 2, "--output-dir", tmp_path / "run"])
    wait_for_step(tmp_path / "run", 5, process)
    ranks = children(process)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "error: process 1 of 2 (rank 1, pid " in err
    assert "was ended by SIGKILL" in err
    assert "Traceback" not in err
    assert not any(map(is_alive, ranks))


def test_an_interrupted_run_saves_in_all_and_says_so_once(settings: list, llmkit: Command, tmp_path: Path):
    out = tmp_path / "run"
    process = llmkit.start([*settings, "--max-steps", 5000, "--nproc", 2, "--output-dir", out])
    wait_for_step(out, 3, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert err.count("Interrupted after step") == 1
    last = read_metrics(out)[-1]["step"]
    assert (out / "checkpoints" / f"step-{last}" / "llmkit.json").is_file()


def test_nothing_is_left_when_the_launcher_is_killed(settings: list, llmkit: Command, tmp_path: Path):
    process = llmkit.start([*settings, "--max-steps", 5000, "--nproc", 2, "--output-dir", tmp_path / "run"])
    wait_for_step(tmp_path / "run", 2, process)
    ranks = children(process)
    process.kill()
    process.communicate()
    deadline = time.monotonic() + SECONDS
    while any(map(is_alive, ranks)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(ranks) == 2
    assert not any(map(is_alive, ranks))


def test_processes_that_do_not_fit(settings: list, run: Run):
    error = run(*settings, "--nproc", 3, "--set", "parallel.tensor=2", code=2).error
    assert error == "parallel.tensor=2 does not divide the 3 processes; it may be 1, 3"
    error = run(*settings, "--nproc", 8, code=2).error
    assert error.startswith("batch.rows_per_step=5 is less than the 8 processes that share each step")


def test_nproc_under_torchrun(settings: list, run: Run, monkeypatch: pytest.MonkeyPatch):
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 2}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    assert "leave --nproc out under torchrun" in run(*settings, "--nproc", 2, code=2).error
