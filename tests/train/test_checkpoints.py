import errno
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmkit.errors import CheckpointError, DataError, TrainingError
from llmkit.train.checkpoints import CheckpointStore
from llmkit.train.manifest import MANIFEST, find_fault


def writer(content: str) -> Callable[[Path], None]:
    """Writes a weights file and a trainer state."""

    def write(path: Path) -> None:
        (path / "model.safetensors").write_text(content)
        (path / "trainer").mkdir()
        (path / "trainer" / "state.pt").write_text(content * 2)

    return write


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints", keep_last=2, config_hash="abc", config={"seed": 3})


def names(store: CheckpointStore) -> list[str]:
    return sorted(entry.name for entry in store.path.iterdir())


def test_a_checkpoint_holds_its_files_and_says_what_it_is(store: CheckpointStore):
    saved = store.save(10, writer("w"))
    assert saved == store.latest() == store.load(10)
    assert (saved.step, saved.config_hash, saved.config) == (10, "abc", {"seed": 3})
    assert saved.path == store.path / "step-10"
    assert (saved.trainer / "state.pt").read_text() == "ww"
    assert "python" in saved.versions
    manifest = json.loads((saved.path / MANIFEST).read_text())
    assert set(manifest["files"]) == {"model.safetensors", "trainer/state.pt"}
    assert names(store) == ["step-10"]


def test_an_empty_store_has_no_latest(store: CheckpointStore, capsys: pytest.CaptureFixture[str]):
    assert store.latest() is None
    assert store.steps() == []
    assert capsys.readouterr().err == ""


def test_the_best_checkpoint_outlives_newer_ones(store: CheckpointStore):
    store.save(5, writer("w"))
    store.mark_best(5)
    for step in (10, 20, 30):
        store.save(step, writer("w"))
    assert names(store) == ["best", "step-20", "step-30", "step-5"]
    assert store.best == 5
    store.mark_best(30)
    assert names(store) == ["best", "step-20", "step-30"]
    assert (store.path / "best").read_text() == "step-30\n"
    latest = store.latest()
    assert latest is not None
    assert latest.step == 30


def test_a_best_checkpoint_that_is_gone_is_told_of(store: CheckpointStore, capsys: pytest.CaptureFixture[str]):
    store.save(5, writer("w"))
    store.mark_best(5)
    store.mark_best(4)
    assert "the best checkpoint, step-4, is gone" in capsys.readouterr().err
    assert store.best is None
    assert names(store) == ["step-5"]


@pytest.mark.parametrize("content", [b"", b"step-9\n", b"last\n", b"\xff\xfe"])
def test_a_file_that_names_no_checkpoint_keeps_none(store: CheckpointStore, content: bytes):
    store.save(5, writer("w"))
    (store.path / "best").write_bytes(content)
    assert store.best is None


def test_older_checkpoints_go_when_a_newer_one_is_safe(store: CheckpointStore):
    for step in (5, 10, 100):
        store.save(step, writer(str(step)))
    assert store.steps() == [10, 100]
    assert names(store) == ["step-10", "step-100"]


def test_a_failed_save_removes_nothing_but_itself(store: CheckpointStore):
    for step in (5, 10):
        store.save(step, writer(str(step)))

    def fail(path: Path) -> None:
        writer("x")(path)
        raise DataError("bad row")

    with pytest.raises(DataError, match="bad row"):
        store.save(15, fail)
    assert names(store) == ["step-10", "step-5"]
    assert all(find_fault(store.path / name) is None for name in names(store))


def test_a_step_that_is_there_whole_is_not_written_again(store: CheckpointStore):
    store.save(5, writer("first"))
    store.save(5, writer("second"))
    assert (store.path / "step-5" / "model.safetensors").read_text() == "first"


def test_a_step_that_is_damaged_is_written_again(store: CheckpointStore):
    store.save(5, writer("first"))
    (store.path / "step-5" / "model.safetensors").write_text("damaged")
    store.save(5, writer("second"))
    assert (store.path / "step-5" / "model.safetensors").read_text() == "second"
    assert find_fault(store.path / "step-5") is None


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no manifest": (lambda path: (path / MANIFEST).unlink(), f"has no {MANIFEST}"),
    "cut manifest": (lambda path: (path / MANIFEST).write_text('{"format": 1, "st'), f"its {MANIFEST} is damaged"),
    "foreign manifest": (lambda path: (path / MANIFEST).write_text("[]"), f"its {MANIFEST} is damaged"),
    "missing file": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
    "shorter file": (lambda path: (path / "trainer/state.pt").write_text("x"),
                     "trainer/state.pt has 1 bytes and was written with 10"),
    "changed file": (lambda path: (path / "model.safetensors").write_text("xxxxx"), "its checksum differs"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_former_one_used(
    damage: str, store: CheckpointStore, capsys: pytest.CaptureFixture[str]
):
    store.save(5, writer("former"))
    store.save(10, writer("newer"))
    harm, fault = DAMAGES[damage]
    harm(store.path / "step-10")
    latest = store.latest()
    assert latest is not None
    assert latest.step == 5
    warning = capsys.readouterr().err
    assert "step-10" in warning
    assert fault in warning
    with pytest.raises(CheckpointError, match=r"step-10: .*; other checkpoints there: step-5"):
        store.load(10)


def test_a_checkpoint_of_another_step_or_format_is_refused(store: CheckpointStore):
    saved = store.save(5, writer("w"))
    shutil.copytree(saved.path, store.path / "step-7")
    assert find_fault(store.path / "step-7") == f"its {MANIFEST} is that of step 5"
    manifest = json.loads((saved.path / MANIFEST).read_text())
    (saved.path / MANIFEST).write_text(json.dumps({**manifest, "format": 99}))
    assert "format 99" in str(find_fault(saved.path))


def test_a_missing_checkpoint_is_an_error_that_lists_what_is_there(store: CheckpointStore):
    store.save(5, writer("w"))
    with pytest.raises(CheckpointError, match=r"step-6: no such checkpoint; other checkpoints there: step-5"):
        store.load(6)


def test_what_a_killed_save_left_is_reported_and_cleared_by_the_next_save(
    store: CheckpointStore, capsys: pytest.CaptureFixture[str]
):
    store.save(5, writer("w"))
    (store.path / "step-10.partial").mkdir()
    latest = store.latest()
    assert latest is not None
    assert latest.step == 5
    assert "step-10.partial: was not finished" in capsys.readouterr().err
    store.save(11, writer("w"))
    assert names(store) == ["step-11", "step-5"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
def test_a_full_disk_leaves_former_checkpoints_intact(store: CheckpointStore):
    store.save(5, writer("w"))

    def fill(path: Path) -> None:
        (path / "model.safetensors").symlink_to("/dev/full")
        (path / "model.safetensors").write_text("x")

    with pytest.raises(TrainingError, match=r"step-10: no space left .* What was saved before is intact"):
        store.save(10, fill)
    assert names(store) == ["step-5"]
    assert find_fault(store.path / "step-5") is None


def test_a_full_disk_is_recognised_behind_a_librarys_error(store: CheckpointStore):
    def fail(path: Path) -> None:
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        except OSError as error:
            raise RuntimeError("could not serialize") from error

    with pytest.raises(TrainingError, match="no space left"):
        store.save(10, fail)


def test_ctrl_c_in_a_save_leaves_nothing_half_done(store: CheckpointStore):
    def interrupt(path: Path) -> None:
        (path / "model.safetensors").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.save(10, interrupt)
    assert names(store) == []


SAVE_FOREVER = """
import itertools, sys
from pathlib import Path
from llmkit.train.checkpoints import CheckpointStore

def write(path):
    for part in range(20):
        (path / f"part-{part}.bin").write_bytes(bytes([part]) * 20_000)

store = CheckpointStore(Path(sys.argv[1]), keep_last=2)
first = (store.steps() or [0])[-1] + 1
for step in itertools.count(first):
    store.save(step, write)
    print(step, flush=True)
"""


def test_killing_a_run_while_it_saves_never_costs_the_last_checkpoint(tmp_path: Path):
    """SIGKILL at random moments of a process that does nothing but save: what it said was saved can be used."""
    draw = random.Random(0)
    saved = 0
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()  # it saves
        time.sleep(draw.uniform(0.0, 0.08))
        process.kill()
        said, _ = process.communicate()
        saved = max([saved, *(int(line) for line in said.split())])
        store = CheckpointStore(tmp_path, keep_last=2)
        latest = store.latest()
        assert latest is not None
        assert latest.step >= saved
        assert find_fault(latest.path) is None
        assert all(find_fault(tmp_path / f"step-{step}") is None for step in store.steps())
        saved = latest.step
