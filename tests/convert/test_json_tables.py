"""JSON Lines that pyarrow reads in blocks: the same tables and the same errors as row by row."""

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit import cli
from llmkit.convert.datasets import json_tables
from llmkit.convert.datasets.tables import tables_of, write_tables
from llmkit.convert.datasets.tally import Tally
from llmkit.data.files.jsonl import JSONLines
from llmkit.data.files.reading import open_stream
from llmkit.errors import DataError, SourceError

FIRST = {"id": 1, "text": "one", "score": 0.5, "tags": ["a"], "meta": {"ok": True, "n": 1}, "none": None}
LINE = json.dumps(FIRST)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch):
    """The first line is read by itself, and then so much that a block has several."""
    monkeypatch.setattr(json_tables, "FIRST_BYTES", len(LINE) + 1)
    monkeypatch.setattr(json_tables, "BLOCK_BYTES", 4 * len(LINE))


@pytest.fixture
def parsed_lines(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the lines that were read row by row."""
    numbers: list[int] = []
    parse = JSONLines.parse
    monkeypatch.setattr(JSONLines, "parse", lambda self, span: numbers.append(span.line) or parse(self, span))
    return numbers


def in_blocks(path: Path, out: Path) -> tuple[list[dict[str, Any]], Tally]:
    tally = Tally()

    def begin() -> Tally:
        nonlocal tally
        tally = Tally()
        return tally

    write_tables(out, "parquet", json_tables.JSONTables(open_stream([str(path)]), begin))
    return pq.read_table(out).to_pylist(), tally


def row_by_row(rows: list[dict[str, Any]], out: Path) -> list[dict[str, Any]]:
    write_tables(out, "parquet", partial(tables_of, lambda: rows))
    return pq.read_table(out).to_pylist()


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines))
    return path


SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text("aé\n\\}{ ")
)
ROWS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.integers(-5, 5) | st.none(),
        "text": st.text('aé\n\\"}{ \x00\x1f\U0001f600\u2028'),
        "score": st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**60), 2**60),
        "tags": st.lists(st.sampled_from(["a", "b", None])),
        "meta": st.fixed_dictionaries({"ok": st.booleans()}, optional={"n": st.integers(0, 3) | st.floats(0, 1)}),
        "none": SCALARS,
        "late": st.lists(st.fixed_dictionaries({}, optional={"x": st.integers(0, 1), "y": st.text("ab")}), max_size=2),
    },
)


@settings(max_examples=150, deadline=None)
@given(rows=st.lists(ROWS, max_size=12), ascii_only=st.booleans(), end=st.sampled_from(["\n", "\r\n", " \n", "\n\n"]))
def test_blocks_and_rows_make_the_same_table(
    rows: list[dict[str, Any]], ascii_only: bool, end: str, tmp_path_factory: pytest.TempPathFactory
):
    directory = tmp_path_factory.mktemp("rows")
    rows = [FIRST, *rows]
    path = directory / "rows.jsonl"
    path.write_bytes("".join(json.dumps(row, ensure_ascii=ascii_only) + end for row in rows).encode())
    try:
        expected = row_by_row(rows, directory / "rows.parquet")
    except DataError:
        with pytest.raises(DataError, match=r"do not fit one table|which Parquet cannot hold"):
            in_blocks(path, directory / "blocks.parquet")
        return
    found, tally = in_blocks(path, directory / "blocks.parquet")
    assert found == expected
    assert tally == Tally(read=len(rows))
    assert pq.read_schema(directory / "blocks.parquet") == pq.read_schema(directory / "rows.parquet")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_alike_are_not_read_one_by_one(end: str, tmp_path: Path, parsed_lines: list[int]):
    path = write(tmp_path / "rows.jsonl", LINE, *[(LINE + end).encode()] * 200)
    found, tally = in_blocks(path, tmp_path / "out.parquet")
    assert found == [FIRST] * 201
    assert tally.read == 201
    assert parsed_lines == [1]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (LINE + LINE, "Extra data"),
        (LINE + "null" + LINE, "Extra data"),
        (LINE[:20] + "\n" + LINE[20:], "not valid JSON"),
        ("null", "this is null"),
        ("[1]", "this is a list"),
        ('{"id": 1, "id": 2}', "comes twice"),
        ('{"meta": {"n": 1, "\\u006e": 2}}', "comes twice"),
        (b'{"text": "caf\xe9"}\n', "is not UTF-8"),
        ('{"id": 01}', "not valid JSON"),
        ('{"text": "a\nb"}', "not valid JSON"),
    ],
)
def test_a_faulty_line_is_named_and_the_others_are_there(
    line: str | bytes, what: str, tmp_path: Path, parsed_lines: list[int]
):
    path = write(tmp_path / "rows.jsonl", *[LINE] * 50, line, *[LINE] * 50)
    found, tally = in_blocks(path, tmp_path / "out.parquet")
    assert found == [FIRST] * 100
    assert f"{path}:51:" in tally.faults[0]
    assert what in tally.faults[0]
    assert tally.read == 100 + tally.faulty
    assert len(parsed_lines) < 20


def test_a_whole_number_that_a_float_would_round_is_refused(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[LINE] * 20, '{"score": 9007199254740993}')
    with pytest.raises(DataError, match="do not fit one table"):
        in_blocks(path, tmp_path / "out.parquet")


def test_numbers_keep_all_their_digits(tmp_path: Path, parsed_lines: list[int]):
    numbers = [0.1, 0.30000000000000004, 5e-324, 2.2250738585072014e-308, 9007199254740991.0, 123456.789e-7]
    path = write(tmp_path / "rows.jsonl", LINE, *(json.dumps({"score": number}) for number in numbers))
    found, _ = in_blocks(path, tmp_path / "out.parquet")
    assert [row["score"] for row in found[1:]] == numbers
    assert parsed_lines == [1]


def test_columns_that_come_late_are_in_every_block(tmp_path: Path):
    late = {**FIRST, "meta": {"ok": False, "n": 0.25}, "none": "some", "new": [{"a": 1}]}
    rows = [FIRST] * 30 + [late] + [FIRST] * 30 + [{"new": [{"b": "x"}]}]
    path = write(tmp_path / "rows.jsonl", *map(json.dumps, rows))
    found, _ = in_blocks(path, tmp_path / "out.parquet")
    assert found == row_by_row(rows, tmp_path / "rows.parquet")
    assert found[30]["new"] == [{"a": 1, "b": None}]


def test_dates_stay_text(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", '{"day": "2020-01-01"}', '{"day": "2020-01-02"}', '{"day": "2020-01-03"}')
    in_blocks(path, tmp_path / "out.parquet")
    assert pq.read_schema(tmp_path / "out.parquet").field("day").type == pa.string()


def packed(path: Path) -> Path:
    target = path.with_suffix(".jsonl.gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    return target


@pytest.mark.parametrize("change", [lambda path: path, packed], ids=["plain", "packed"])
def test_a_mark_at_the_start_long_lines_and_no_end_of_the_last_one(change: Callable[[Path], Path], tmp_path: Path):
    rows = [FIRST, {**FIRST, "text": "long " * 1000}, FIRST, {"id": 4}]
    text = "\ufeff" + "\n".join(map(json.dumps, rows))
    (tmp_path / "rows.jsonl").write_text(text)
    found, tally = in_blocks(change(tmp_path / "rows.jsonl"), tmp_path / "out.parquet")
    assert [row["id"] for row in found] == [1, 1, 1, 4]
    assert found[1]["text"] == rows[1]["text"]
    assert tally.read == 4


def test_a_torn_last_line_is_told_of(tmp_path: Path):
    path = write(tmp_path / "rows.jsonl", *[LINE] * 9, LINE[:30].encode())
    _, tally = in_blocks(path, tmp_path / "out.parquet")
    assert "the last line ends within a row" in tally.faults[0]
    assert f"{path}:10:" in tally.faults[0]


def test_a_file_that_breaks_off_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    lines = (json.dumps({"id": index, "text": str(index**50)}) for index in range(20_000))
    path = packed(write(tmp_path / "rows.jsonl", *lines))
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(SourceError, match="pack or download the file again"):
        in_blocks(path, tmp_path / "out.parquet")
    assert cli.run(["convert", "dataset", str(path), "--output", str(tmp_path / "rows.parquet")]) == 2
    assert "pack or download" in capsys.readouterr().err
    assert not list(tmp_path.glob("rows.parquet*"))


def test_blank_lines_alone_are_no_rows(tmp_path: Path):
    with pytest.raises(SourceError, match="no rows, only blank lines"):
        in_blocks(write(tmp_path / "rows.jsonl", "", " ", ""), tmp_path / "out.parquet")


def test_several_files_follow_one_another(tmp_path: Path):
    (tmp_path / "in").mkdir()
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path / "in" / name, LINE, LINE)
    assert cli.run(["convert", "dataset", str(tmp_path / "in"), "--output", str(tmp_path / "out.arrow")]) == 0
    assert pa.ipc.open_file(tmp_path / "out.arrow").read_all().to_pylist() == [FIRST] * 4
