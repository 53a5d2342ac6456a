import errno
from pathlib import Path

import pytest

from llmkit.disk import free_bytes, is_disk_full, write_text, writing
from llmkit.errors import TrainingError

needs_dev_full = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")


def test_written_text_replaces_the_old_one_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "config.yaml"
    write_text(path, "old")
    write_text(path, "new: ü\n")
    assert path.read_text(encoding="utf-8") == "new: ü\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_lone_surrogate_is_escaped(tmp_path: Path):
    write_text(tmp_path / "a.jsonl", '"\ud800"')
    assert (tmp_path / "a.jsonl").read_bytes() == b'"\\ud800"'


def test_a_failed_write_keeps_the_old_content(tmp_path: Path):
    path = tmp_path / "config.yaml"
    path.mkdir()  # a directory cannot be replaced by a file
    (path / "inside").touch()
    with pytest.raises(TrainingError, match=r"config\.yaml: cannot be written"):
        write_text(path, "new")
    assert [entry.name for entry in tmp_path.iterdir()] == ["config.yaml"]


@needs_dev_full
def test_a_full_disk_is_named_with_the_path_and_the_free_space(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: no space left \(.* free .*--resume"), writing(path):
        path.write_text("x")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("[enforce fail] PytorchStreamWriter failed writing file data/0: file write failed"),
        ValueError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_recognised_in_every_wording(error: Exception):
    assert is_disk_full(error)
    outer = RuntimeError("saving failed")
    outer.__cause__ = error
    assert is_disk_full(outer)


def test_other_errors_are_no_full_disk():
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(ValueError("bad"))


def test_free_space_of_a_place_that_does_not_exist_yet_is_its_parents(tmp_path: Path):
    assert free_bytes(tmp_path / "a" / "b") > 0
