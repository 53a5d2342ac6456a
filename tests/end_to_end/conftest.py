"""What the tests of whole commands share: small inputs, and the command itself in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmkit import cli
from llmkit.testing.tiny import tiny_model


@pytest.fixture(scope="session")
def model() -> str:
    """Directory of a two-layer random model."""
    return tiny_model()


@pytest.fixture(scope="session")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short conversations in the OpenAI format."""
    path = tmp_path_factory.mktemp("data") / "chats.jsonl"
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"Say {word * (index % 5 + 1)}."},
                {"role": "assistant", "content": word * (index % 5 + 1)},
            ]
        }
        for index in range(20)
        for word in ("ba", "no")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty preference pairs."""
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"prompt": f"Count to {index}.", "chosen": "one " * (index % 4 + 1), "rejected": "no"} for index in range(1, 31)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def sft(model: str, chats: Path) -> list[object]:
    """A command line that trains for four steps and saves each."""
    data = ["--dataset", "files", "--dataset-path", chats]
    return ["train", "sft", "--model", model, *data, "--max-steps", 4, "--rows-per-step", 2, "--checkpoint-every", 1]


@pytest.fixture
def grpo(model: str) -> list[object]:
    """A command line that samples two groups of two, four tokens long, for four steps."""
    problems = ["--set", "dataset={name: arithmetic, size: 20, max_steps: 1}"]
    rollouts = ["--prompts-per-step", 2, "--group-size", 2, "--max-new-tokens", 4, "--max-length", 320]
    return ["train", "grpo", "--model", model, *problems, *rollouts, "--max-steps", 4, "--checkpoint-every", 0]


class Command:
    """`llmkit` in a process of its own, in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {"HF_HUB_OFFLINE": "1"}

    def start(self, arguments: Sequence[object], threads: int = 1) -> subprocess.Popen[str]:
        """Start it, and do not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "llmkit", *map(str, arguments)],
            cwd=self.directory,
            env={**os.environ, "OMP_NUM_THREADS": str(threads), **self.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, code: int = 0, threads: int = 1) -> tuple[str, str]:
        """Run it to its end and check its exit code; returns standard output and standard error."""
        process = self.start(arguments, threads)
        out, err = process.communicate(timeout=900)
        assert process.returncode == code, f"exit code {process.returncode}\n{err}\n{out}"
        assert "Traceback" not in err, err
        return out, err


@pytest.fixture
def llmkit(tmp_path: Path) -> Command:
    return Command(tmp_path)


@dataclass(frozen=True)
class Ended:
    """How a command line ended in this process.

    Attributes:
        code: exit code.
        out: standard output.
        err: standard error.
    """

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one error message."""
        (message,) = ("\n" + self.err).split("\nerror: ")[1:]
        return message.strip()


Run = Callable[..., Ended]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line in this process, in a directory of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int = 0) -> Ended:
        capsys.readouterr()
        found = cli.run([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert found == code, f"exit code {found}\n{err}\n{out}"
        assert "Traceback" not in err
        return Ended(found, out, err)

    return run


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's `metrics.jsonl`."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
