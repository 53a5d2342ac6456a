"""Every fault of a file, told in one line with its place and the way out."""

import gzip
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import DataError, SourceError

ROW = b'{"a": 1}\n'
BAD_FILES = {
    "empty.jsonl": (b"", ": the file is empty"),
    "empty.json": (b"", ": the file is empty"),
    "empty.csv": (b"", ": the file is empty"),
    "empty.txt": (b"", ": the file is empty"),
    "empty.parquet": (b"", ": the file is empty"),
    "empty.arrow": (b"", ": the file is empty"),
    "empty.jsonl.gz": (b"", ": the file is empty"),
    "nothing.jsonl.gz": (gzip.compress(b""), ": the file is empty"),
    "blank.jsonl": (b"\n \n", ": no rows, only blank lines"),
    "blank.json": (b" \n", ": the file is blank"),
    "blank.csv": (b"\n\n", ": no header line, only blank lines"),
    "blank.txt": (b"\n\n", ": no rows, only blank lines"),
    "none.json": (b"[]", ": the list has no rows"),
    "none.csv": (b"a,b\n", ": no rows; a table needs a header line and at least one row"),
    "binary.jsonl": (b'{"a": 1}\n\x00\x01\x02\x03', ": byte 9 is zero, so this is a binary file"),
    "utf16.jsonl": (
        '{"a": "b"}\n'.encode("utf-16"),
        ": the file is UTF-16; llmkit reads UTF-8. Convert it: iconv -f UTF",
    ),
    "utf16le.jsonl": ('{"a": "b"}\n'.encode("utf-16-le"), ": the file is UTF-16;"),
    "utf16.txt": ("hello".encode("utf-16"), ": the file is UTF-16;"),
    "utf32.csv": ("a\n".encode("utf-32"), ": the file is UTF-32;"),
    "latin.jsonl": (
        b'{"a": 1}\n{"b": "\xe9t\xe9"}\n',
        ":2:8: byte 16 (0xe9) is not UTF-8; if the file is Latin-1, convert",
    ),
    "latin.json": (b'[{"a": 1},\n{"b": "\xe9t\xe9"}]\n', ":2:8: byte 18 (0xe9) is not UTF-8"),
    "latin.csv": (b"\xef\xbb\xbfa\n\xe9\n", ":2:1: byte 5 (0xe9) is not UTF-8"),
    "latin.txt": (b"good\nna\xefve\n", ":2:3: byte 7 (0xef) is not UTF-8"),
    "torn.jsonl": (b'{"a": 1}\n{"a": "tw', ":2:7: the last line ends within a row"),
    "torn.json": (b'[{"a": 1},\n {"a": 2}', ":2:10: the document ends too early (expected ']'); the file was cut off"),
    "text.json": (b'[{"a": 1},\n {"a": "tw', ":2:8: the document ends too early (Unterminated string"),
    "object.json": (b'{"data": [{"a": 1}], "n"', ":1:25: the document ends too early (expected ':')"),
    "torn.parquet": (b"PAR1 and no more", ": not a whole Parquet file; it may have been cut off: "),
    "torn.arrow": (b"ARROW1 and no more", ": not a whole Arrow file; it may have been cut off: "),
    "torn.jsonl.gz": (
        gzip.compress(ROW * 99)[:-9],
        ": the gzip data ends too early; the file was cut off; pack or download",
    ),
    "torn.jsonl.zst": (
        pyarrow.compress(ROW * 99, codec="zstd", asbytes=True)[:-9],
        ": the zstd data ends too early; the file was cut off",
    ),
    "damaged.jsonl.gz": (gzip.compress(ROW)[:-8] + bytes(8), ": the gzip data is damaged ("),
    "syntax.jsonl": (b'{"a": 1}\n{a: 1}\n{"a": 3}\n', ":2:2: not valid JSON:"),
    "syntax.json": (b'[{"a": 1},\n {"a": tru}]', ":2:8: not valid JSON:"),
    "comma.json": (b'[{"a": 1}\n {"a": 2}]', ":2:2: not valid JSON: expected ','"),
    "trailing.json": (b'[{"a": 1},\n]', ":2:1: not valid JSON: a comma with nothing after it"),
    "key.json": (b'{"data": [],\n}', ":2:1: not valid JSON: a comma with nothing after it"),
    "extra.json": (b'[{"a": 1}]\n{}', ":2:1: not valid JSON: extra data"),
    "list.jsonl": (b'{"a": 1}\n[1]\n', ":2: a row must be a JSON object, this is a list"),
    "words.json": (b'[{"a": 1},\n"b"]', ":2: a row must be a JSON object, this is text"),
    "number.json": (b"3", ": a .json file must hold a list of rows, this is a number"),
    "rows.json": (
        b'{"rows": [1], "n": 2}',
        ": which list has the rows? A .json file must be a list, or an object with one",
    ),
    "two.json": (b'{"data": [{}], "conversations": [{}]}', ": which list has the rows?"),
    "short.csv": (b"a,b\n1,2\n3\n", ":3: 1 cells, but the header has 2 columns (a, b); put a cell that holds a comma"),
    "long.tsv": (b"a\tb\n1\t2\t3\n", ":2: 3 cells, but the header has 2 columns (a, b); put a cell that holds a tab"),
    "quote.csv": (b'a\n1\n"open\n', ":3: not a row of a table: a quoted cell is never closed"),
    "after.csv": (b'a,b\n"x"y,2\n3,4\n', ":2: not a row of a table: ',' expected after '\"'"),
    "twice.csv": (b"a,b,a\n1,2,3\n", ":1: the header names column 'a' twice"),
    "unnamed.csv": (b"a,,c\n1,2,3\n", ":1: column 2 of the header has no name"),
    "semicolon.csv": (
        b"a;b\n1;2\n",
        ":1: one column 'a;b'; cells between semicolons are read when you replace them by commas",
    ),
    "tabs.csv": (
        b"a\tb\n1\t2\n",
        ":1: one column 'a\tb'; cells between tabs are read when you set dataset.file_type=tsv",
    ),
    "mac.csv": (b"a,b\r1,2\r", ":1: a carriage return alone within the line; if the file ends its lines so: tr "),
    "sheet.xlsx": (b"PK", ": a '.xlsx' file is not read by its name; llmkit reads .jsonl, "),
    "rows.parquet.gz": (gzip.compress(b"x"), ": a packed parquet file is not read; unpack it"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_gets_one_clear_line(write, fault, name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("LLMKIT_CACHE", str(tmp_path / "cache"))
    content, message = BAD_FILES[name]
    assert fault(write(name, content)).startswith(message)


LYING_NAMES = {
    "gzip.jsonl": (
        gzip.compress(ROW),
        ": this is gzip-compressed, not text, whatever its name says; let its name end in",
    ),
    "zstd.csv": (b"\x28\xb5\x2f\xfd..", ": this is zstandard-compressed, not text"),
    "table.jsonl": (
        b"PAR1...",
        ": this is a Parquet file, not text, whatever its name says; set dataset.file_type=par",
    ),
    "arrow.json": (b"ARROW1..", ": this is an Arrow file, not text"),
    "stream.txt": (b"\xff\xff\xff\xff\x10", ": this is an Arrow stream, not text"),
    "zip.csv": (b"PK\x03\x04", ": this is a zip archive, not text, whatever its name says; unpack it"),
    "plain.jsonl.gz": (ROW, ": not gzip data, whatever its name says; take the last extension off"),
    "list.jsonl": (
        b'[{"a": 1}]',
        ":1: a row must be a JSON object, this is a list; if the whole file is one list, whatever",
    ),
    "lines.parquet": (ROW, ": not a whole Parquet file"),
    "lines.feather": (ROW, ": not a whole Arrow file"),
}


@pytest.mark.parametrize("name", LYING_NAMES)
def test_a_file_that_is_not_what_its_name_says(write, fault, name: str):
    content, message = LYING_NAMES[name]
    assert fault(write(name, content)).startswith(message)


def test_the_type_can_be_said_when_the_name_lies(write, read, tmp_path: Path):
    assert read(write("list.jsonl", '[{"a": 1}]'), file_type="json") == [({"a": 1}, 1)]
    assert read(write("data.log", ROW), file_type="jsonl") == [({"a": 1}, 1)]
    parquet.write_table(pyarrow.Table.from_pylist([{"a": 1}]), tmp_path / "table.jsonl")
    assert read(tmp_path / "table.jsonl", file_type="parquet") == [({"a": 1}, 1)]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_utf8_byte_order_mark_is_accepted(write, read, name: str):
    content = {"a.jsonl": '{"text": "1"}\n', "a.json": '[{"text": "1"}]', "a.csv": "text\n1\n", "a.txt": "1\n"}[name]
    ((values, _),) = read(write(name, b"\xef\xbb\xbf" + content.encode()))
    assert values == {"text": "1"}


def test_nothing_there(tmp_path: Path, fault):
    assert fault(tmp_path / "missing.jsonl") == ": no such file or directory"


def test_a_link_is_followed_and_a_broken_one_named(write, read, fault, tmp_path: Path):
    target = write("target.jsonl", ROW)
    (tmp_path / "link.jsonl").symlink_to(target)
    assert read(tmp_path / "link.jsonl") == [({"a": 1}, 1)]
    (tmp_path / "broken.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert fault(tmp_path / "broken.jsonl") == f": a link to {tmp_path / 'gone.jsonl'}, which is not there"


def test_a_pipe_is_no_file(tmp_path: Path, fault):
    import os

    os.mkfifo(tmp_path / "pipe.jsonl")
    assert fault(tmp_path / "pipe.jsonl") == ": not a regular file; write what it gives to a file first"


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read, whoever asks")
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.txt"])
def test_a_file_that_the_system_does_not_read(tmp_path: Path, fault, name: str):
    (tmp_path / name).symlink_to("/proc/self/mem")
    assert fault(tmp_path / name).startswith(": cannot be read: ")


def test_a_file_without_permission(write, fault, monkeypatch: pytest.MonkeyPatch):
    path = write("a.jsonl", ROW)
    import os

    former = os.open

    # The tests may run as a user whom nothing is forbidden.
    def refuse(name, *rest):
        if str(name) == str(path):
            raise PermissionError(13, "Permission denied")
        return former(name, *rest)

    monkeypatch.setattr(os, "open", refuse)
    assert fault(path) == ": cannot be read: Permission denied"


CHANGES = {
    "rows.jsonl": (ROW * 2, ROW * 3),
    "rows.json": (b'[{"a": 1}, {"a": 2}]', b'[{"a": 1}, {"a": 2}, {"a": 3}]'),
    "rows.csv": (b"a\n1\n2\n", b"a\n1\n2\n3\n"),
    "rows.txt": (b"one\ntwo\n", b"one\ntwo\nthree\n"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changes_or_goes_while_a_data_set_is_read(write, name: str):
    before, after = CHANGES[name]
    path = write(name, before)
    dataset = open_path(str(path))
    assert len(dataset) == 2
    write(name, after)
    with pytest.raises(SourceError, match="the file changed after it was opened; start again"):
        dataset[0]
    path.unlink()
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        dataset[0]


@pytest.mark.parametrize("name", CHANGES)
def test_a_file_that_changes_while_a_stream_is_read(write, name: str):
    before, after = CHANGES[name]
    stream = open_stream(str(write(name, before)))
    reader = stream.open()
    next(reader)
    position = reader.position
    write(name, after)
    # The pass may end with the rows that were there, or with the new one; either way it does not end well.
    for _ in range(2):
        with pytest.raises(SourceError, match="the file changed after it was opened"):
            list(reader)
    with pytest.raises(DataError, match="the file changed since the position to go on from was saved"):
        open_stream(str(write(name, after))).open(position)


def test_a_table_that_changes(tmp_path: Path):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"a": n} for n in range(3)]), path)
    dataset = open_path(str(path))
    assert dataset[0].values == {"a": 0}
    parquet.write_table(pyarrow.Table.from_pylist([{"a": n} for n in range(4)]), path)
    with pytest.raises(SourceError, match="the file changed after it was opened"):
        dataset[1]


def test_a_document_that_breaks_off_is_no_row_that_a_run_could_leave_out(write):
    stream = open_stream(str(write("a.json", b'[{"a": 1}, {"a": 2}, {"a"')))
    reader = stream.open()
    assert [next(reader).values["a"], next(reader).values["a"]] == [1, 2]
    for _ in range(2):
        with pytest.raises(SourceError, match="the document ends too early"):
            next(reader)


def test_a_position_of_other_files_is_refused(write, tmp_path: Path):
    for name in ("a", "b"):
        write(f"{name}.jsonl", ROW * 2)
    reader = open_stream(str(tmp_path)).open()
    for _ in range(3):
        next(reader)
    assert reader.position["file"] == 1
    with pytest.raises(DataError, match=r"the position to go on from is in file 2, 'b\.jsonl', but there are 1 files"):
        open_stream(str(tmp_path / "a.jsonl")).open(reader.position)


def test_a_copy_of_the_files_goes_on_where_the_original_stood(write, tmp_path: Path):
    write("here/a.jsonl", [{"n": n} for n in range(4)])
    reader = open_stream(str(tmp_path / "here")).open()
    next(reader)
    write("there/a.jsonl", [{"n": n} for n in range(4)])
    rest = open_stream(str(tmp_path / "there")).open(reader.position)
    assert [row.values["n"] for row in rest] == [1, 2, 3]
