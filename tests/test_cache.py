import os
import time

import pytest

from llmkit.cache import cached_directory, remove_unused
from llmkit.errors import TrainingError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(path):
    (path / "file").write_text("content")


def test_a_group_is_a_directory_of_its_own(cache):
    assert cached_directory("thing", write, group="data") == cache / "data" / "thing"
    assert cached_directory("thing", write) == cache / "models" / "thing"


def test_an_entry_that_is_not_whole_is_made_again(cache):
    entry = cached_directory("thing", write)
    (entry / "file").unlink()
    (entry / "rest").write_text("")
    assert cached_directory("thing", write, is_whole=lambda path: (path / "file").exists()) == entry
    assert [path.name for path in entry.iterdir()] == ["file"]


def test_a_making_that_fails_leaves_no_partial_entry(cache):
    def fail(path):
        write(path)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cached_directory("thing", fail)
    assert [path.name for path in (cache / "models").iterdir()] == ["thing.lock"]


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(cache):
    cache.write_text("a file where a directory should be")
    with pytest.raises(TrainingError, match=r"cache/models.*set LLMKIT_CACHE to another directory"):
        cached_directory("thing", write)


def test_unused_entries_and_what_a_kill_left_are_removed(cache):
    names = ["old", "used", "new"]
    for name in names:
        cached_directory(name, write, group="data")
    (cache / "data" / "killed.lock").touch()
    (cache / "data" / "killed.partial").mkdir()
    two_days_ago = time.time() - 2 * 24 * 3600
    for name in ("old", "used", "killed.partial"):
        os.utime(cache / "data" / name, (two_days_ago, two_days_ago))
    cached_directory("used", write, group="data")
    remove_unused("data", days=1)
    assert sorted(path.name for path in (cache / "data").iterdir() if path.is_dir()) == ["new", "used"]


def test_an_entry_that_is_being_made_is_not_removed(cache):
    def make(path):
        write(path)
        long_ago = time.time() - 99 * 24 * 3600
        os.utime(path, (long_ago, long_ago))
        remove_unused("data", days=1)
        assert path.is_dir()

    assert (cached_directory("thing", make, group="data") / "file").exists()


def test_removing_from_a_cache_that_is_not_there_does_nothing(cache):
    remove_unused("data", days=1)
    assert not cache.exists()
