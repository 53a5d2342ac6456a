"""Files, directories, patterns and lists of them; splits, limits, columns and fingerprints."""

import json
import os
from pathlib import Path

import pytest

from llmkit.data.files.find import find_files, split_of
from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import DataError


def test_a_directory_is_read_file_by_file(write, read, tmp_path: Path):
    write("b.jsonl", [{"n": 2}])
    write("a.jsonl", [{"n": 0}, {"n": 1}])
    for name in ("README.md", "LICENSE.txt", "dataset_info.json", ".hidden.jsonl", "_SUCCESS"):
        write(name, "about")
    assert [row["n"] for row, _ in read(tmp_path)] == [0, 1, 2]
    dataset = open_path(str(tmp_path))
    assert str(dataset[2].source) == f"{tmp_path / 'b.jsonl'}:1"
    with pytest.raises(IndexError):
        dataset[3]


def test_packed_and_plain_files_of_one_type_are_one_set(write, read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import gzip

    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    write("rows/a.jsonl", [{"n": 0}])
    write("rows/b.jsonl.gz", gzip.compress(b'{"n": 1}\n'))
    assert [row["n"] for row, _ in read(tmp_path / "rows")] == [0, 1]


def test_patterns_and_lists(write, read, tmp_path: Path):
    for name in ("x/a.jsonl", "x/deep/b.jsonl", "y/c.jsonl", "x/other.csv"):
        write(name, [{"n": name}])
    assert [row["n"] for row, _ in read(f"{tmp_path}/*/*.jsonl")] == ["x/a.jsonl", "y/c.jsonl"]
    assert [row["n"] for row, _ in read(f"{tmp_path}/x/**/*.jsonl")] == ["x/a.jsonl", "x/deep/b.jsonl"]
    rows = open_path([f"{tmp_path}/y", f"{tmp_path}/x/a.jsonl"])
    assert [rows[index].values["n"] for index in range(2)] == ["y/c.jsonl", "x/a.jsonl"]
    with pytest.raises(DataError, match=r"\*\.parquet: no data file fits this pattern"):
        read(f"{tmp_path}/*.parquet")
    with pytest.raises(DataError, match=r"dataset\.path=\[\]: name at least one file"):
        open_path([])


def test_a_file_may_have_the_name_of_a_pattern(write, read):
    assert read(write("a[1].jsonl", [{"n": 1}])) == [({"n": 1}, 1)]


def test_a_directory_of_several_types_names_them_and_the_way_out(write, fault, tmp_path: Path):
    for name in ("b.jsonl", "a.jsonl", "c.csv"):
        write(name, "a\n1\n")
    assert fault(tmp_path) == (
        ": files of 2 types: 1 csv (c.csv, ...), 2 jsonl (a.jsonl, ...); name those of one type: "
        f"--set 'dataset.path={tmp_path}/*.jsonl'"
    )


def test_a_directory_without_data(write, fault, tmp_path: Path):
    write("README.md", "about")
    assert fault(tmp_path).startswith(": no data in this directory; llmkit reads .jsonl, ")
    write("deep/a.jsonl", [{"n": 1}])
    assert fault(tmp_path).endswith(f"It has the directories deep: name one, or {tmp_path}/**/*.jsonl")


def test_a_directory_of_save_to_disk_names_its_plugin(write, fault, tmp_path: Path):
    write("state.json", "{}")
    assert "--set dataset.name=huggingface" in fault(tmp_path)


def test_a_split_is_chosen_by_file_name(write, read, tmp_path: Path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "my_val"):
        write(f"{name}.jsonl", [{"name": name}])
    assert [row["name"] for row, _ in read(tmp_path)] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert [row["name"] for row, _ in read(tmp_path, split="test")] == ["test"]
    assert [row["name"] for row, _ in read(tmp_path, split="validation")] == ["my_val"]
    assert len(read(f"{tmp_path}/*.jsonl")) == 4
    with pytest.raises(DataError, match="no file of split 'best'; splits here: test, train, validation"):
        read(tmp_path, split="best")


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.jsonl", "train"), ("gsm8k_test.csv.gz", "test"), ("Dev-1.json", "validation"), ("trainer.json", None)],
)
def test_splits_are_whole_words_of_a_name(name: str, split: str | None):
    assert split_of(Path(name)) == split


def test_a_split_of_one_file_is_warned_about(write, caplog: pytest.LogCaptureFixture):
    path = write("a.jsonl", [{"a": 1}])
    assert [file.path for file in find_files(str(path), "test")] == [path]
    assert "dataset.split=test has no effect" in caplog.text


def test_limit_takes_the_first_rows(write, read):
    path = write("a.jsonl", [{"a": n} for n in range(5)])
    assert [row["a"] for row, _ in read(path, limit=2)] == [0, 1]
    assert len(read(path, limit=9)) == 5


def test_columns_are_renamed_and_others_stay(write, read):
    path = write("a.jsonl", [{"question": "q", "answer": "a", "id": 1}])
    assert read(path, columns={"prompt": "question"}) == [({"answer": "a", "id": 1, "prompt": "q"}, 1)]
    assert read(path, columns={"question": "answer", "answer": "question"}) == [
        ({"id": 1, "question": "a", "answer": "q"}, 1)
    ]


def test_a_column_that_is_missing_or_in_the_way(write, fault):
    path = write("a.jsonl", [{"question": "q", "answer": "a"}])
    assert fault(path, columns={"prompt": "qestion"}) == (
        ":1: no column 'qestion', which dataset.columns.prompt names; found question, answer. Did you mean 'question'?"
    )
    assert "there is a column 'answer' already" in fault(path, columns={"answer": "question"})


def test_a_fingerprint_is_of_contents_and_options(write, tmp_path: Path):
    path = write("a.jsonl", [{"a": 1}, {"a": 2}])
    copy = write("copy/b.jsonl", [{"a": 1}, {"a": 2}])
    first = open_path(str(path)).fingerprint()
    assert open_path(str(copy)).fingerprint() == first
    assert open_stream(str(path)).fingerprint() == first
    others = [
        open_path(str(path), limit=1),
        open_path(str(path), columns={"b": "a"}),
        open_path(str(path), file_type="text"),
        open_path(str(write("c.jsonl", [{"a": 1}, {"a": 3}]))),
        open_path([str(path), str(copy)]),
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 6


def test_a_fingerprint_sees_a_change_that_keeps_size_and_time(write):
    path = write("a.jsonl", [{"a": 1}])
    before, stat = open_path(str(path)).fingerprint(), path.stat()
    new = write("new.jsonl", [{"a": 2}])
    os.utime(new, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    new.replace(path)
    assert open_path(str(path)).fingerprint() != before


def test_a_position_is_small_json(write):
    reader = open_stream(str(write("a.jsonl", [{"a": n} for n in range(3)]))).open()
    next(reader)
    assert reader.position == {
        "file": 0,
        "name": "a.jsonl",
        "mark": reader.position["mark"],
        "place": [9, 2],  # '{"a": 0}\n' has 9 bytes
        "num_rows": 1,
    }
    assert len(json.dumps(reader.position)) < 150
