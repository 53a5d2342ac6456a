"""Plain text, and files that are packed."""

import gzip
import subprocess
import sys
import time
from pathlib import Path

import pyarrow
import pytest

from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import DataError

TEXT = "\nFirst line\nsecond line\r\n \n\nThird é\n"


def test_each_line_is_a_row(write, read):
    expected = [({"text": "First line"}, 2), ({"text": "second line"}, 3), ({"text": "Third é"}, 6)]
    assert read(write("a.txt", TEXT)) == expected
    assert read(write("a.md", TEXT)) == expected


def test_paragraphs_end_at_blank_lines(write, read):
    assert read(write("a.txt", TEXT), text_rows="paragraph") == [
        ({"text": "First line\nsecond line"}, 2),
        ({"text": "Third é"}, 6),
    ]


def test_a_file_is_a_row_as_it_is(write, read, tmp_path: Path):
    write("a.txt", TEXT)
    write("b.txt", "more")
    assert [row["text"] for row, _ in read(tmp_path, text_rows="file")] == [TEXT, "more"]


def test_a_line_may_be_very_long(write, read):
    assert len(read(write("a.txt", "x" * 3_000_000 + "\nend\n"))[0][0]["text"]) == 3_000_000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache directory of the test's own."""
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_packed_file_has_its_own_name_and_lines(write, read, cache: Path):
    content = b'{"a": 1}\n\n{"a": 2}\n'
    for name, data in (
        ("a.jsonl.gz", gzip.compress(content)),
        ("a.jsonl.zst", pyarrow.compress(content, "zstd", True)),
    ):
        path = write(name, data)
        assert read(path) == [({"a": 1}, 1), ({"a": 2}, 3)]
        assert str(open_path(str(path))[1].source) == f"{path}:3"


def test_members_of_a_packed_file_follow_one_another(write, read, cache: Path):
    members = b"".join(gzip.compress(f"line {n}\n".encode()) for n in range(3))
    assert [row["text"] for row, _ in read(write("a.txt.gz", members))] == ["line 0", "line 1", "line 2"]
    members = b"".join(pyarrow.compress(f"line {n}\n".encode(), "zstd", True) for n in range(3))
    assert [row["text"] for row, _ in read(write("b.txt.zst", members))] == ["line 0", "line 1", "line 2"]


def test_a_data_set_unpacks_once_and_a_stream_never(write, cache: Path):
    path = str(write("a.jsonl.gz", gzip.compress(b'{"a": 1}\n')))
    list(open_stream(path).open())
    assert not cache.exists()
    open_path(path)
    (unpacked,) = cache.glob("unpacked/*/content")
    written = unpacked.stat().st_mtime_ns
    open_path(path)
    assert [file.stat().st_mtime_ns for file in cache.glob("unpacked/*/content")] == [written]


def test_what_could_not_be_unpacked_leaves_nothing_behind(write, cache: Path):
    with pytest.raises(DataError, match="ends too early"):
        open_path(str(write("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 1000)[:-10])))
    assert not [path for path in cache.glob("unpacked/*") if path.suffix != ".lock"]


UNPACK = "import sys; from llmkit.data.files.reading import open_path; print(len(open_path(sys.argv[1])), flush=True)"


def test_processes_that_unpack_the_same_file_at_once_all_read_it(write, cache: Path):
    path = write("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 300_000, 1))
    command = [sys.executable, "-c", UNPACK, str(path)]
    killed = subprocess.Popen(command)
    deadline = time.monotonic() + 60
    while not list(cache.glob("unpacked/*.partial/*")) and time.monotonic() < deadline and killed.poll() is None:
        time.sleep(0.001)
    killed.kill()  # what it leaves behind is in nobody's way
    killed.wait()
    others = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0] for process in others] == ["300000\n", "300000\n"]


def test_a_cache_that_cannot_be_written_is_named(write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LLMKIT_CACHE", str(write("a-file", b"")))
    with pytest.raises(
        DataError,
        match=r"a\.jsonl\.gz: cannot be unpacked: .*set LLMKIT_CACHE to another directory, or dataset\.stream",
    ):
        open_path(str(write("a.jsonl.gz", gzip.compress(b'{"a": 1}\n'))))
