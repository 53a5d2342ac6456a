"""Every kind of file, and every fault, with its place."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.files.find import find_files, split_of
from llmkit.data.files.reading import open_path
from llmkit.errors import DataError

ROWS = [{"a": 1, "text": "héllo"}, {"a": 2, "text": "line\nbreak"}]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def as_lines(rows: list) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read(path: Path, split: str | None = None, limit: int | None = None) -> list[tuple[dict, int]]:
    dataset = open_path(str(path), split, limit)
    return [(dict(dataset[index].values), dataset[index].source.line) for index in range(len(dataset))]


def error_of(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_json_lines(tmp_path: Path):
    assert read(write(tmp_path / "a.jsonl", as_lines(ROWS))) == [(ROWS[0], 1), (ROWS[1], 2)]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", '\n{"a": 1}\n  \n\n{"a": 2}\r\n\n')
    assert read(path) == [({"a": 1}, 2), ({"a": 2}, 5)]


def test_a_whole_last_line_needs_no_newline(tmp_path: Path):
    assert read(write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}')) == [({"a": 1}, 1), ({"a": 2}, 2)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_utf8_byte_order_mark_is_accepted(tmp_path: Path, name: str):
    content = {"a.jsonl": '{"a": "1"}\n', "a.json": '[{"a": "1"}]', "a.csv": "a\n1\n"}[name]
    ((values, _),) = read(write(tmp_path / name, b"\xef\xbb\xbf" + content.encode()))
    assert values == {"a": "1"}


@settings(deadline=None, max_examples=100)
@given(
    rows=st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.one_of(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
                st.integers(),
                st.lists(st.integers(), max_size=3),
                st.none(),
            ),
            max_size=3,
        ),
        min_size=1,
        max_size=6,
    ),
    indent=st.sampled_from([None, 2]),
)
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, rows: list, indent: int | None):
    directory = tmp_path_factory.mktemp("rows")
    assert read(write(directory / "a.jsonl", as_lines(rows))) == [(row, line) for line, row in enumerate(rows, 1)]
    array = write(directory / "a.json", json.dumps(rows, indent=indent))
    assert [row for row, _ in read(array)] == rows
    wrapped = write(directory / "b.json", json.dumps({"version": [1, 2], "data": rows, "n": {"x": "]"}}, indent=indent))
    assert [row for row, _ in read(wrapped)] == rows


def test_rows_of_an_array_know_their_lines(tmp_path: Path):
    path = write(tmp_path / "a.json", '[\n  {"a": 1},\n\n  {\n    "a": 2\n  }\n]\n')
    assert read(path) == [({"a": 1}, 2), ({"a": 2}, 4)]


def test_a_json_file_may_hold_lines(tmp_path: Path):
    assert read(write(tmp_path / "a.json", as_lines(ROWS))) == [(ROWS[0], 1), (ROWS[1], 2)]


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(tmp_path: Path):
    path = write(tmp_path / "a.csv", 'q,a\n"one, two","say ""hi"""\n"line\nbreak",\n\nlast,x\n')
    assert read(path) == [
        ({"q": "one, two", "a": 'say "hi"'}, 2),
        ({"q": "line\nbreak", "a": ""}, 3),
        ({"q": "last", "a": "x"}, 6),
    ]


def test_parquet(tmp_path: Path):
    import pyarrow
    from pyarrow import parquet

    rows = [{"messages": [{"role": "user", "content": "hi"}], "n": None}, {"messages": [], "n": 3}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [(rows[0], 1), (rows[1], 2)]


def test_rows_can_be_read_again_and_end_with_an_index_error(tmp_path: Path):
    for name, content in (("a.jsonl", as_lines(ROWS)), ("a.json", json.dumps(ROWS)), ("a.csv", "a\n1\n2\n")):
        dataset = open_path(str(write(tmp_path / name, content)), None, None)
        assert dataset[1] == dataset[1]
        for index in (2, -1):
            with pytest.raises(IndexError):
                dataset[index]


def test_limit_takes_the_first_rows(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", as_lines([{"a": n} for n in range(5)]))
    assert [row["a"] for row, _ in read(path, limit=2)] == [0, 1]
    assert len(read(path, limit=9)) == 5


def test_a_directory_is_read_file_by_file(tmp_path: Path):
    write(tmp_path / "b.jsonl", '{"n": 2}\n')
    write(tmp_path / "a.jsonl", '{"n": 0}\n{"n": 1}\n')
    write(tmp_path / "README.md", "about")
    assert [row["n"] for row, _ in read(tmp_path)] == [0, 1, 2]
    dataset = open_path(str(tmp_path), None, None)
    assert str(dataset[2].source) == f"{tmp_path / 'b.jsonl'}:1"
    with pytest.raises(IndexError):
        dataset[3]


def test_a_split_is_chosen_by_file_name(tmp_path: Path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "my_val"):
        write(tmp_path / f"{name}.jsonl", json.dumps({"name": name}) + "\n")
    assert [row["name"] for row, _ in read(tmp_path)] == ["train-00000-of-00002", "train-00001-of-00002"]
    assert [row["name"] for row, _ in read(tmp_path, split="test")] == ["test"]
    assert [row["name"] for row, _ in read(tmp_path, split="validation")] == ["my_val"]
    with pytest.raises(DataError, match="no file of split 'best'; splits here: test, train, validation"):
        read(tmp_path, split="best")


@pytest.mark.parametrize(
    ("name", "split"),
    [("train.jsonl", "train"), ("gsm8k_test.csv", "test"), ("Dev-1.json", "validation"), ("trainer.json", None)],
)
def test_splits_are_whole_words_of_a_name(name: str, split: str | None):
    assert split_of(Path(name)) == split


def test_a_split_of_one_file_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = write(tmp_path / "a.jsonl", '{"a": 1}\n')
    assert find_files(path, "test") == [path]
    assert "dataset.split=test has no effect" in caplog.text


BAD_FILES = {
    "empty.jsonl": (b"", ": the file is empty"),
    "empty.json": (b"", ": the file is empty"),
    "empty.csv": (b"", ": the file is empty"),
    "empty.parquet": (b"", ": the file is empty"),
    "blank.jsonl": (b"\n \n", ": no rows, only blank lines"),
    "blank.json": (b" \n", ": the file is blank"),
    "none.json": (b"[]", ": the list has no rows"),
    "none.csv": (b"a,b\n", ": no rows; a .csv file needs a header line"),
    "binary.jsonl": (b'{"a": 1}\n\x00\x01\x02\x03', ": byte 9 is zero, so this is a binary file"),
    "gzip.jsonl": (b"\x1f\x8b\x08\x00", ": this is gzip-compressed, not text"),
    "utf16.jsonl": ('{"a": "b"}\n'.encode("utf-16"), ": the file is UTF-16; llmkit reads UTF-8. Convert it: iconv"),
    "utf16le.jsonl": ('{"a": "b"}\n'.encode("utf-16-le"), ": the file is UTF-16;"),
    "utf32.csv": ("a\n".encode("utf-32"), ": the file is UTF-32;"),
    "latin.jsonl": (b'{"a": 1}\n{"b": "\xe9t\xe9"}\n', ":2:8: byte 16 (0xe9) is not UTF-8"),
    "latin.json": (b'[{"a": 1},\n{"b": "\xe9t\xe9"}]\n', ":2:8: byte 18 (0xe9) is not UTF-8"),
    "latin.csv": (b"\xef\xbb\xbfa\n\xe9\n", ":2:1: byte 5 (0xe9) is not UTF-8"),
    "torn.jsonl": (b'{"a": 1}\n{"a": "tw', ":2:7: the last line ends within a row"),
    "torn.json": (b'[{"a": 1},\n {"a": 2}', ":2:10: the document ends too early; the file was cut off"),
    "torn.parquet": (b"PAR1 and no more", ": not a whole Parquet file"),
    "syntax.jsonl": (b'{"a": 1}\n{a: 1}\n{"a": 3}\n', ":2:2: not valid JSON:"),
    "syntax.json": (b'[{"a": 1},\n {"a": tru}]', ":2:8: not valid JSON:"),
    "comma.json": (b'[{"a": 1}\n {"a": 2}]', ":2:2: not valid JSON: expected ','"),
    "trailing.json": (b'[{"a": 1},\n]', ":2:1: not valid JSON: a comma with nothing after it"),
    "extra.json": (b'[{"a": 1}]\n{}', ":2:1: not valid JSON: extra data"),
    "list.jsonl": (b"[1]\n", ":1: a row must be a JSON object, this is a list"),
    "text.json": (b'[{"a": 1},\n"b"]', ":2: a row must be a JSON object, this is text"),
    "number.json": (b"3", ": a .json file must hold a list of rows, this is a number"),
    "object.json": (b'{"rows": [1], "n": 2}', ": which list has the rows?"),
    "two.json": (b'{"data": [{}], "conversations": [{}]}', ": which list has the rows?"),
    "short.csv": (b"a,b\n1,2\n3\n", ":3: 1 cells, but the header has 2 columns (a, b)"),
    "long.csv": (b"a,b\n1,2,3\n", ":2: 3 cells, but the header has 2 columns"),
    "quote.csv": (b'a\n"open\n', ": not a CSV file"),
    "twice.csv": (b"a,b,a\n", ":1: the header names column 'a' twice"),
    "unnamed.csv": (b"a,,c\n", ":1: column 2 of the header has no name"),
    "notes.txt": (b"hello", ": a '.txt' file is not read; llmkit reads .jsonl, .json, .csv, .parquet"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_one_clear_line(tmp_path: Path, name: str):
    content, message = BAD_FILES[name]
    assert error_of(write(tmp_path / name, content)).startswith(message)


def test_json_nested_too_deeply_is_an_error(tmp_path: Path):
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert "nested too deeply" in error_of(write(tmp_path / "deep.jsonl", deep + "\n"))
    assert "nested too deeply" in error_of(write(tmp_path / "deep.json", f"[{deep}]"))


def test_nothing_there(tmp_path: Path):
    assert error_of(tmp_path / "missing.jsonl") == ": no such file or directory"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, whoever asks")
def test_a_file_that_the_system_does_not_read(tmp_path: Path):
    for name in ("a.jsonl", "a.json", "a.csv"):
        (tmp_path / name).symlink_to("/proc/self/mem")
        assert error_of(tmp_path / name).startswith(": cannot be read: ")


def test_a_directory_without_data(tmp_path: Path):
    write(tmp_path / "README.md", "about")
    assert error_of(tmp_path).startswith(": no data in this directory")


def test_a_directory_of_several_types_names_them(tmp_path: Path):
    write(tmp_path / "a.jsonl", "{}\n")
    write(tmp_path / "b.csv", "a\n1\n")
    assert error_of(tmp_path).startswith(": files of 2 types (b.csv, a.jsonl, ...)")


def test_a_directory_of_save_to_disk_names_its_plugin(tmp_path: Path):
    write(tmp_path / "state.json", "{}")
    assert "--set dataset.name=huggingface" in error_of(tmp_path)


def test_a_file_that_changes_is_noticed(tmp_path: Path):
    path = write(tmp_path / "a.jsonl", as_lines(ROWS))
    dataset = open_path(str(path), None, None)
    write(path, as_lines([*ROWS, *ROWS]))
    with pytest.raises(DataError, match="the file changed after it was opened"):
        dataset[0]
    os.remove(path)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        dataset[0]
