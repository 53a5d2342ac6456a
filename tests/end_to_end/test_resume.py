"""A run that was killed and resumed is the run that was never killed, bit for bit."""

import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from .conftest import Command, read_metrics

TIMINGS = ("_seconds", "_per_second", "peak_memory_bytes")
NUM_STEPS = 12
EMA = "optim.ema_decay=0.9"


def arguments(algorithm: str, model: str, chats: Path, pairs: Path) -> list[str]:
    """A short run of every algorithm, with an optimizer and an average of its own, that saves every third step."""
    common = ["--model", model, "--max-steps", str(NUM_STEPS), "--learning-rate", "1e-3", "--checkpoint-every", "3"]
    common += ["--max-length", "96", "--eval-every", "4", "--threads", "1"]
    if algorithm == "sft":
        # Dropout makes the random state part of what has to be restored.
        lora = ["--adapter", "lora", "--set", "adapter.dropout=0.1", "--optimizer", "muon", "--set", EMA]
        return [
            "train",
            "sft",
            "--dataset",
            "files",
            "--dataset-path",
            str(chats),
            "--rows-per-step",
            "6",
            *lora,
            *common,
        ]
    if algorithm == "dpo":
        average = ["--optimizer", "schedule_free", "--set", "optim.schedule=constant", *common]
        return ["train", "dpo", "--dataset", "files", "--dataset-path", str(pairs), "--rows-per-step", "4", *average]
    problems = ["--dataset", "arithmetic", "--set", "dataset.size=50", "--set", "dataset.max_steps=1"]
    rollouts = ["--prompts-per-step", "3", "--group-size", "4", "--max-new-tokens", "12", "--kl-coef", "0.05"]
    held_out = ["--set", "eval_dataset={name: arithmetic, split: test, size: 4}", "--set", "reward.name=closeness"]
    return ["train", "grpo", *problems, *rollouts, *held_out, *common, "--set", EMA, "--max-length", "320"]


def comparable(run: Path) -> list[dict[str, Any]]:
    """Metrics without what depends on the clock."""
    return [{name: value for name, value in row.items() if not name.endswith(TIMINGS)} for row in read_metrics(run)]


def weights(run: Path) -> dict[str, torch.Tensor]:
    (path,) = (run / "checkpoints" / f"step-{NUM_STEPS}").glob("*model.safetensors")
    return safetensors.torch.load_file(path)


def wait_for_step(run: Path, step: int, process: Any) -> None:
    """Until the run has written `step` down."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if (run / "metrics.jsonl").exists() and f'"step":{step},' in (run / "metrics.jsonl").read_text().replace(
            " ", ""
        ):
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.005)
    raise AssertionError(f"step {step} did not come")


@pytest.fixture
def closeness(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reward for models that know nothing: installed as a third-party plugin is, by its metadata on the path."""
    site = tmp_path_factory.mktemp("site")
    (site / "closeness.py").write_text(
        '"""Share of the letter e."""\n'
        "from llmkit.config.section import Section\n"
        "class Config(Section):\n    pass\n"
        "def build(config):\n"
        "    return lambda rollout: sum(token % 7 == 3 for token in rollout.token_ids) / 100\n"
    )
    metadata = site / "closeness-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: closeness\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[llmkit.rewards]\ncloseness = closeness\n")
    monkeypatch.setenv("PYTHONPATH", str(site))


@pytest.mark.usefixtures("closeness")
@pytest.mark.parametrize("algorithm", ["sft", "dpo", "grpo"])
def test_killed_and_resumed_equals_uninterrupted(
    algorithm: str, model: str, chats: Path, pairs: Path, llmkit: Command, tmp_path: Path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = arguments(algorithm, model, chats, pairs)
    llmkit.run(*settings, "--output-dir", str(whole))

    process = llmkit.start([*settings, "--output-dir", str(killed)])
    wait_for_step(killed, random.Random().randint(4, NUM_STEPS - 2), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    llmkit.run("train", algorithm, "--resume", "--output-dir", str(killed))

    assert comparable(killed) == comparable(whole)
    expected, found = weights(whole), weights(killed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_exits_130_and_goes_on(
    number: signal.Signals, model: str, chats: Path, pairs: Path, llmkit: Command, tmp_path: Path
):
    run = tmp_path / "run"
    settings = [*arguments("sft", model, chats, pairs), "--max-steps", "500", "--checkpoint-every", "0"]
    process = llmkit.start([*settings, "--output-dir", str(run)])
    wait_for_step(run, 5, process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert f"--resume --output-dir {run}" in err
    assert "Traceback" not in err
    last = read_metrics(run)[-1]["step"]
    assert (run / "checkpoints" / f"step-{last}" / "llmkit.json").is_file()
    assert (run / "report.html").is_file()
    llmkit.run("train", "sft", "--resume", "--output-dir", str(run), "--max-steps", str(last + 2))
    assert [row["step"] for row in read_metrics(run)] == list(range(1, last + 3))
