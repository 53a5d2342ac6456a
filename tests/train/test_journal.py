import json
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmkit import plugins
from llmkit.config.section import PluginSection
from llmkit.errors import EngineError, RunInterrupted, TrainingError
from llmkit.runs import run_directory
from llmkit.runs.run_directory import RunDirectory
from llmkit.train.journal import Journal, rewind
from llmkit.types import Message, Record, Rollout, Source

FAKES = '''"""Trackers for tests."""
from pathlib import Path
from llmkit.config.section import Section
from llmkit.errors import EngineError

class Config(Section):
    """Nothing to set."""

class Deaf:
    def __init__(self, run_dir: Path, error: Exception):
        self.run_dir, self.error = run_dir, error
    def log(self, metrics):
        raise self.error
    def close(self):
        (self.run_dir / "closed").touch()
        raise self.error

class deaf:
    """Fails at every step."""
    Config = Config
    build = staticmethod(lambda config, run_dir, resolved, resumed: Deaf(run_dir, ValueError("no network")))

class fatal:
    """Ends the run."""
    Config = Config
    build = staticmethod(lambda config, run_dir, resolved, resumed: Deaf(run_dir, EngineError("it is over")))
'''


@pytest.fixture
def fake_trackers(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installed package with the trackers `deaf` and `fatal`."""
    site = tmp_path_factory.mktemp("site")
    (site / "journal_fakes.py").write_text(FAKES)
    info = site / "journal_fakes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: journal-fakes\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[llmkit.trackers]\ndeaf = journal_fakes:deaf\nfatal = journal_fakes:fatal\n"
    )
    monkeypatch.syspath_prepend(str(site))
    plugins.rescan()
    yield
    monkeypatch.undo()
    plugins.rescan()


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[RunDirectory]:
    with run_directory.open("train/grpo", output_dir=tmp_path / "run") as opened:
        opened.write_start("seed: 0\n", ["llmkit"])
        yield opened


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def measure(step: int) -> dict[str, float]:
    """Metrics that depend on nothing but the step, as those of a seeded run do."""
    return {"loss": random.Random(step).random()}


def run_steps(directory: RunDirectory, first: int, last: int, resume_from: int | None = None) -> None:
    with Journal(directory, resume_from=resume_from) as journal:
        for step in range(first, last + 1):
            journal.log(step, measure(step))


def series(directory: RunDirectory) -> list[tuple[int, float]]:
    return [(row["step"], row["loss"]) for row in lines(directory.metrics)]


def make_rollout(completion: str = "72", reward: float | None = 1.0) -> Rollout:
    record = Record((Message("user", "How many?"),), Source("gsm8k:test", 7), answer="72")
    return Rollout(
        [5, 6, 7], [0, 1, 1], [0.0, -0.5, -0.1], [-1, 3, 4], "stop", record, 2, "How many?", completion, reward
    )


def test_every_step_is_one_line_with_its_step_and_time(directory: RunDirectory):
    clock = iter([10.0, 10.5, 12.0])
    with Journal(directory, clock=lambda: next(clock)) as journal:
        journal.log(0, {"eval_loss": 2.0})
        journal.log(1, {"loss": 1.5})
    assert lines(directory.metrics) == [
        {"step": 0, "time_seconds": 0.5, "eval_loss": 2.0},
        {"step": 1, "time_seconds": 2.0, "loss": 1.5},
    ]


def test_a_line_is_in_the_file_as_soon_as_it_was_logged(directory: RunDirectory):
    with Journal(directory) as journal:
        journal.log(1, {"loss": 1.5})
        assert lines(directory.metrics)[0]["loss"] == 1.5


def test_numbers_that_json_cannot_hold_are_null(directory: RunDirectory):
    with Journal(directory) as journal:
        journal.log(1, {"loss": float("nan"), "grad_norm": float("inf"), "note": "ü"})
    row = lines(directory.metrics)[0]
    assert (row["loss"], row["grad_norm"], row["note"]) == (None, None, "ü")


def test_a_step_is_logged_once(directory: RunDirectory):
    with Journal(directory) as journal:
        journal.log(3, {})
        with pytest.raises(AssertionError, match="step 3 was logged after step 3"):
            journal.log(3, {})


def test_a_resumed_run_reads_as_if_it_had_never_stopped(directory: RunDirectory):
    run_steps(directory, 1, 20)
    expected = series(directory)
    before = directory.metrics.read_bytes()
    run_steps(directory, 14, 20, resume_from=13)
    assert series(directory) == expected
    aside = (directory.path / "metrics.before-resume-13.jsonl").read_bytes()
    kept = before.splitlines(keepends=True)[:13]
    assert directory.metrics.read_bytes().startswith(b"".join(kept))
    assert b"".join(kept) + aside == before


def test_time_goes_on_from_the_last_line_that_stayed(directory: RunDirectory):
    clock = iter([0.0, 1.0, 2.0, 3.0])
    with Journal(directory, clock=lambda: next(clock)) as journal:
        for step in (1, 2, 3):
            journal.log(step, {})
    clock = iter([100.0, 100.5])
    with Journal(directory, resume_from=2, clock=lambda: next(clock)) as journal:
        journal.log(3, {})
    assert [row["time_seconds"] for row in lines(directory.metrics)] == [1.0, 2.0, 2.5]


def test_a_run_killed_before_its_first_checkpoint_begins_again(directory: RunDirectory):
    run_steps(directory, 0, 4)
    run_steps(directory, 0, 6)
    assert [step for step, _ in series(directory)] == list(range(7))
    assert len(lines(directory.path / "metrics.before-resume-0.jsonl")) == 5


def test_two_resumptions_from_one_step_lose_nothing(directory: RunDirectory):
    run_steps(directory, 1, 5)
    run_steps(directory, 3, 7, resume_from=2)
    run_steps(directory, 3, 4, resume_from=2)
    assert [step for step, _ in series(directory)] == [1, 2, 3, 4]
    assert [row["step"] for row in lines(directory.path / "metrics.before-resume-2.jsonl")] == [3, 4, 5, 3, 4, 5, 6, 7]


def test_a_file_cut_anywhere_is_mended_and_nothing_is_lost(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    run_steps(directory, 1, 3)
    whole = directory.metrics.read_bytes()
    aside = directory.path / "metrics.before-resume-3.jsonl"
    capsys.readouterr()
    for length in range(len(whole)):
        directory.metrics.write_bytes(whole[:length])
        rewind(directory, 3)
        mended = directory.metrics.read_bytes()
        moved = aside.read_bytes() if aside.exists() else b""
        assert (mended + moved).rstrip(b"\n") == whole[:length].rstrip(b"\n")
        assert mended == b"" or mended.endswith(b"\n")
        assert all(json.loads(line) for line in mended.splitlines())
        assert ("damaged" in capsys.readouterr().err) == (moved != b"")
        aside.unlink(missing_ok=True)


def test_missing_lines_before_the_checkpoint_are_reported(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    run_steps(directory, 1, 3)
    rewind(directory, 5)
    assert "the last steps up to 5 are missing" in capsys.readouterr().err


RUN_FOREVER = """
import random, sys
from pathlib import Path
from llmkit.runs import run_directory
from llmkit.train.checkpoints import CheckpointStore
from llmkit.train.journal import Journal

with run_directory.open("train/sft", output_dir=sys.argv[1], resume=sys.argv[2] == "resume") as directory:
    directory.write_start("seed: 0")
    store = CheckpointStore(directory.checkpoints)
    checkpoint = store.latest()
    step = checkpoint.step if checkpoint else 0
    with Journal(directory, total_steps=10**6, resume_from=checkpoint.step if checkpoint else None) as journal:
        while True:
            step += 1
            journal.log(step, {"loss": random.Random(step).random()})
            if step % 7 == 0:
                store.save(step, lambda path: (path / "weights").write_text(str(step)))
            print(step, flush=True)
"""


def test_a_run_killed_again_and_again_has_the_series_of_one_that_was_not(tmp_path: Path):
    """SIGKILL at random moments of a process that logs and saves all the time."""
    path = tmp_path / "run"
    draw = random.Random(1)
    for attempt in range(10):
        how = "resume" if attempt else "start"
        process = subprocess.Popen(
            [sys.executable, "-c", RUN_FOREVER, str(path), how],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.06))
        process.kill()
        said, _ = process.communicate()
        last_said = int(said.split()[-1]) if said.split() else 0
        found = [(row["step"], row["loss"]) for row in lines(path / "metrics.jsonl")]
        assert found == [(step, random.Random(step).random()) for step in range(1, len(found) + 1)]
        assert len(found) >= last_said


FILL_THE_DISK = """
import sys
from pathlib import Path
from llmkit.disk import free_bytes
from llmkit.errors import TrainingError
from llmkit.runs import run_directory
from llmkit.train.checkpoints import CheckpointStore
from llmkit.train.journal import Journal

def write(path):
    (path / "weights").write_bytes(bytes(100_000))

root = Path(sys.argv[1])
with run_directory.open("train/sft", output_dir=root / "run") as directory:
    directory.write_start("seed: 0")
    store = CheckpointStore(directory.checkpoints)
    store.save(1, write)
    (root / "ballast").write_bytes(bytes(free_bytes(root) - 70_000))
    try:
        with Journal(directory) as journal:
            try:
                store.save(2, write)
            except TrainingError as error:
                print("save:", error)
            for step in range(1, 10_000):
                journal.log(step, {"note": "x" * 999})
    except TrainingError as error:
        print("log:", error)
    print("latest:", store.latest().step)
    sys.stdout.write(directory.metrics.read_text())
"""


def test_a_full_disk_ends_the_run_with_clear_errors_and_whole_files(tmp_path: Path):
    """On a real file system of 40 MB, filled to the brim."""
    mount = 'mount -t tmpfs -o size=40m none "$1" || exit 77; exec "$2" -c "$3" "$1"'
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to mount a small file system")
    done = subprocess.run([*command, str(tmp_path), sys.executable, FILL_THE_DISK], capture_output=True, text=True)
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip("may not mount a small file system here")
    assert done.returncode == 0, done.stderr
    saved, logged, latest, *metrics = done.stdout.splitlines()
    assert re.match(r"save: .*step-2: no space left \(.* free .*make room and go on with --resume", saved)
    assert re.match(r"log: .*metrics\.jsonl: no space left", logged)
    assert latest == "latest: 1"
    assert [json.loads(line)["step"] for line in metrics] == list(range(1, len(metrics) + 1))
    assert len(metrics) > 10
    assert "the report was not written" in done.stderr


def test_a_tracker_that_fails_is_reported_once_and_counted_at_the_end(
    directory: RunDirectory, fake_trackers: None, capsys: pytest.CaptureFixture[str]
):
    with Journal(directory, [PluginSection(name="deaf")]) as journal:
        for step in (1, 2, 3):
            journal.log(step, measure(step))
    told = capsys.readouterr().err
    assert told.count("failed at step") == 1
    assert "tracker 'deaf' failed at step 1: ValueError('no network')" in told
    assert "tracker 'deaf' failed to close" in told
    assert "missed 3 steps" in told
    assert len(lines(directory.metrics)) == 3
    assert (directory.path / "closed").exists()


def test_a_tracker_may_end_the_run_and_the_others_are_closed(directory: RunDirectory, fake_trackers: None):
    with (
        pytest.raises(EngineError, match="it is over"),
        Journal(directory, [PluginSection(name="fatal"), PluginSection(name="deaf")]) as journal,
    ):
        journal.log(1, measure(1))
    assert len(lines(directory.metrics)) == 1
    assert (directory.path / "closed").exists()


def test_rollouts_are_one_json_object_each(directory: RunDirectory):
    with Journal(directory) as journal:
        journal.rollouts(10, [make_rollout(), make_rollout("\ud800", None)])
        journal.rollouts(10, [make_rollout()], "eval")
    first, second = lines(directory.rollouts / "step-00010.jsonl")
    wanted = {
        "group_id": 2,
        "reward": 1.0,
        "completion": "72",
        "answer": "72",
        "source": "gsm8k:test:7",
        "version_max": 4,
    }
    assert {name: first[name] for name in wanted} == wanted
    assert second["reward"] is None
    assert len(lines(directory.rollouts / "eval-00010.jsonl")) == 1


def test_rollouts_after_the_checkpoint_are_moved_away(directory: RunDirectory):
    with Journal(directory) as journal:
        for step in (5, 10, 15):
            journal.rollouts(step, [make_rollout()])
    rewind(directory, 10)
    assert sorted(path.name for path in directory.rollouts.glob("*.jsonl")) == ["step-00005.jsonl", "step-00010.jsonl"]
    assert (directory.rollouts / "before-resume-10" / "step-00015.jsonl").exists()


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (RunInterrupted("saved after step 1"), "interrupted", "saved after step 1"),
        (KeyboardInterrupt(), "interrupted", ""),
        (TrainingError("the loss is not finite"), "failed", "the loss is not finite"),
        (ZeroDivisionError("division by zero"), "failed", "ZeroDivisionError"),
    ],
)
def test_a_run_that_ends_early_leaves_a_report_that_says_so(
    error: BaseException, status: str, detail: str, directory: RunDirectory
):
    with pytest.raises(type(error)), Journal(directory):
        raise error
    page = directory.report.read_text(encoding="utf-8")
    assert f'<span class="badge {status}">{status}</span>' in page
    assert detail in page


def test_a_report_that_cannot_be_written_hides_no_error(directory: RunDirectory, capsys: pytest.CaptureFixture[str]):
    directory.report.mkdir()
    with pytest.raises(TrainingError, match="the real one"), Journal(directory):
        raise TrainingError("the real one")
    assert "the report was not written" in capsys.readouterr().err


def test_the_summary_covers_the_whole_run(directory: RunDirectory):
    run_steps(directory, 1, 5)
    with Journal(directory, resume_from=5) as journal:
        journal.log(6, {"loss": 0.25})
        summary = journal.summary()
    assert summary.num_steps == 6
    assert summary.before == {"loss": measure(1)["loss"]}
    assert summary.after == {"loss": 0.25}
