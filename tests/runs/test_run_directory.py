import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.errors import CheckpointError, TrainingError
from llmkit.runs import run_directory
from llmkit.runs.run_directory import RunDirectory, check_space, command_of, latest_run


def start(path: Path, command: str = "train/grpo", num_steps: int = 0) -> None:
    """Leave a run of `command` in `path` that has taken `num_steps` steps."""
    with run_directory.open(command, output_dir=path) as directory:
        directory.write_start("seed: 0\n", ["llmkit"])
        directory.metrics.write_text("".join(f'{{"step": {step}}}\n' for step in range(num_steps)))


def test_a_new_run_gets_a_directory_of_its_own(tmp_path: Path):
    paths: list[Path] = []
    for _ in range(3):
        with run_directory.open("train grpo", name="gsm8k-tiny", root=tmp_path / "runs") as directory:
            paths.append(directory.path)
            assert directory.command == "train/grpo"
            assert not directory.resumed
    assert len(set(paths)) == 3
    assert all(re.fullmatch(r"gsm8k-tiny-\d{8}-\d{6}(-\d)?", path.name) for path in paths)


def test_a_preset_given_as_a_path_names_the_run_by_its_stem(tmp_path: Path):
    with run_directory.open("train/sft", name="my/presets/chat.yaml", root=tmp_path) as directory:
        assert directory.path.parent == tmp_path
        assert directory.path.name.startswith("chat-")


def test_what_starts_is_recorded(tmp_path: Path):
    with run_directory.open("train/grpo", output_dir=tmp_path / "run") as directory:
        directory.write_start("seed: 3\n", ["llmkit", "--set", "x.api_key=abc"])
        assert directory.config.read_text() == "# llmkit train grpo\nseed: 3\n"
        environment = json.loads(directory.environment.read_text())
    assert environment["command_line"] == ["llmkit", "--set", "x.api_key=***"]
    assert environment["earlier_starts"] == []
    assert command_of(tmp_path / "run") == "train/grpo"


def test_a_header_that_is_there_is_not_put_twice(tmp_path: Path):
    with run_directory.open("train/grpo", output_dir=tmp_path) as directory:
        directory.write_start("# llmkit train grpo\nseed: 3\n")
        assert directory.config.read_text() == "# llmkit train grpo\nseed: 3\n"


def test_a_resumed_run_keeps_its_earlier_start_and_configuration(tmp_path: Path):
    start(tmp_path, num_steps=2)
    with run_directory.open("train/grpo", output_dir=tmp_path, resume=True) as directory:
        directory.write_start("seed: 0\n", ["second"])
    assert not list(tmp_path.glob("config.before*"))
    with run_directory.open("train/grpo", output_dir=tmp_path, resume=True) as directory:
        directory.write_start("seed: 0\nmax_steps: 9\n", ["third"])
    starts = json.loads((tmp_path / "environment.json").read_text())
    assert starts["command_line"] == ["third"]
    assert [earlier["command_line"] for earlier in starts["earlier_starts"]] == [["llmkit"], ["second"]]
    assert (tmp_path / "config.before-start-3.yaml").read_text() == "# llmkit train grpo\nseed: 0\n"


def test_a_directory_with_another_run_is_refused(tmp_path: Path):
    start(tmp_path, num_steps=2)
    (tmp_path / "checkpoints" / "step-2").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-10").mkdir()
    with pytest.raises(CheckpointError, match=r"2 lines of metrics, checkpoint step-10.*--resume.*--output-dir"):
        run_directory.open("train/grpo", output_dir=tmp_path)
    with pytest.raises(CheckpointError, match="`llmkit train grpo`") as caught:
        run_directory.open("train/sft", output_dir=tmp_path)
    assert "--resume" not in str(caught.value)


def test_a_run_that_never_took_a_step_leaves_its_directory_free(tmp_path: Path):
    start(tmp_path)
    start(tmp_path, command="train/sft")
    assert command_of(tmp_path) == "train/sft"


def test_a_directory_with_foreign_files_is_refused_and_left_alone(tmp_path: Path):
    for name in "abcdefg":
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"no run of llmkit: a, b, c, d, e, \.\.\."):
        run_directory.open("train/sft", output_dir=tmp_path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == list("abcdefg")


def test_a_file_is_no_directory(tmp_path: Path):
    path = tmp_path / "file"
    path.touch()
    with pytest.raises(CheckpointError, match="is a file"):
        run_directory.open("train/sft", output_dir=path)
    with pytest.raises(CheckpointError, match="cannot be used as a run directory"):
        run_directory.open("train/sft", output_dir=path / "below")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can make a directory")
@pytest.mark.parametrize("arguments", [{"output_dir": Path("/proc/llmkit/run")}, {"root": Path("/proc/llmkit")}])
def test_a_place_that_cannot_be_written_is_named(arguments: dict[str, Path]):
    with pytest.raises(CheckpointError, match=r"/proc/llmkit.*choose another --output-dir"):
        run_directory.open("train/sft", **arguments)  # pyright: ignore[reportArgumentType]


def test_a_full_file_system_is_refused(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"no space left for a run \(.* free"):
        check_space(tmp_path, min_free_bytes=10**18)


def test_only_a_run_of_the_same_command_is_resumed(tmp_path: Path):
    with pytest.raises(CheckpointError, match="does not exist"):
        run_directory.open("train/sft", output_dir=tmp_path / "none", resume=True)
    with pytest.raises(CheckpointError, match="holds no run"):
        run_directory.open("train/sft", output_dir=tmp_path, resume=True)
    start(tmp_path / "run", num_steps=1)
    with pytest.raises(CheckpointError, match="`llmkit train grpo`, not of `llmkit train sft`"):
        run_directory.open("train/sft", output_dir=tmp_path / "run", resume=True)


def test_resuming_without_a_directory_takes_the_run_started_last(tmp_path: Path):
    for age, name in enumerate(["c", "a", "b"]):
        start(tmp_path / name, num_steps=1)
        os.utime(tmp_path / name / "config.yaml", (1000 + age, 1000 + age))
    start(tmp_path / "other", command="train/sft", num_steps=1)
    assert latest_run("train grpo", tmp_path) == tmp_path / "b"
    with run_directory.open("train/grpo", resume=True, root=tmp_path) as directory:
        assert directory.path == tmp_path / "b"
        assert directory.resumed
    with pytest.raises(CheckpointError, match="no run of `llmkit train dpo` to resume"):
        latest_run("train/dpo", tmp_path)


HOLD = """
import os, sys, time
from llmkit.runs import run_directory
directory = run_directory.open("train/grpo", output_dir=sys.argv[1])
directory.write_start("seed: 0")
if sys.argv[2] == "fork":
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        time.sleep(600)
else:
    print("held", flush=True)
time.sleep(600)
"""


def hold(path: Path, how: str) -> tuple[subprocess.Popen[str], str]:
    """A process that holds the run in `path`, and what it printed once it did."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), how], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_two_processes_cannot_write_one_run_and_a_killed_one_holds_nothing(tmp_path: Path):
    process, _ = hold(tmp_path, "alone")
    try:
        with pytest.raises(CheckpointError, match=rf"process {process.pid} on .* is writing this run"):
            run_directory.open("train/grpo", output_dir=tmp_path)
    finally:
        process.kill()
        process.communicate()
    with run_directory.open("train/grpo", output_dir=tmp_path) as directory:
        assert isinstance(directory, RunDirectory)


def test_a_worker_that_outlives_a_killed_run_does_not_hold_it(tmp_path: Path):
    process, child = hold(tmp_path, "fork")
    process.kill()
    process.wait()
    try:
        with run_directory.open("train/grpo", output_dir=tmp_path) as directory:
            assert directory.path == tmp_path
        os.kill(int(child), 0)  # the worker was alive all the time
    finally:
        os.kill(int(child), signal.SIGKILL)
        process.communicate()
