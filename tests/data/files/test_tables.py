"""CSV, Parquet and Arrow."""

import pickle
from decimal import Decimal
from pathlib import Path

import pyarrow
import pytest
from pyarrow import feather, ipc, parquet

from llmkit.data.files import tables
from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import DataError


def test_csv_cells_may_hold_commas_quotes_and_line_breaks(write, read):
    path = write("a.csv", 'q,a\n"one, two","say ""hi"""\n"line\nbreak",\n\nlast,5" pipe\n')
    assert read(path) == [
        ({"q": "one, two", "a": 'say "hi"'}, 2),
        ({"q": "line\nbreak", "a": ""}, 3),
        ({"q": "last", "a": '5" pipe'}, 6),
    ]


def test_csv_with_windows_line_ends_and_tabs(write, read):
    assert read(write("a.csv", "a,b\r\n1,2\r\n")) == [({"a": "1", "b": "2"}, 2)]
    assert read(write("a.tsv", 'a\tb\n1,5\t"x\ty"\n')) == [({"a": "1,5", "b": "x\ty"}, 2)]


def test_csv_values_stay_text(write, read):
    assert read(write("a.csv", "a,b,c\nNaN,007,\n")) == [({"a": "NaN", "b": "007", "c": ""}, 2)]


def test_a_cell_may_be_longer_than_the_csv_module_allows_by_itself(write, read):
    import csv

    long = "x" * 200_000
    assert read(write("a.csv", f'a,b\n{long},1\n"{long}\n",2\n'))[1] == ({"a": f"{long}\n", "b": "2"}, 3)
    assert csv.field_size_limit() == 131_072


def test_a_header_may_span_lines_and_stand_behind_blank_ones(write, read):
    assert read(write("a.csv", '\n"a\nb",c\n1,2\n')) == [({"a\nb": "1", "c": "2"}, 4)]


def test_a_faulty_csv_row_hides_no_other_row(write):
    dataset = open_path(str(write("a.csv", 'a,b\n1,2\n3\n"x"y,1\n4,5\n')))
    assert [dataset[0].values["a"], dataset[3].values["a"]] == ["1", "4"]
    for index, line in ((1, 3), (2, 4)):
        with pytest.raises(DataError, match=f"a.csv:{line}: "):
            dataset[index]


ROWS = [{"messages": [{"role": "user", "content": "hi"}], "n": None}, {"messages": [], "n": 3}]


@pytest.fixture(params=["a.parquet", "a.arrow", "file.arrow", "a.feather"])
def table_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """200 rows in groups of 30."""
    table = pyarrow.Table.from_pylist([{"n": n, "text": str(n) * 50} for n in range(200)])
    path = tmp_path / request.param
    match request.param:
        case "a.parquet":
            parquet.write_table(table, path, row_group_size=30)
        case "a.feather":
            feather.write_feather(table, str(path), chunksize=30)
        case "a.arrow":
            with ipc.new_stream(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=30)
        case _:
            with ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table, max_chunksize=30)
    return path


def test_nested_values_of_a_table(tmp_path: Path, read):
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [(ROWS[0], 1), (ROWS[1], 2)]


def test_a_table_is_read_in_any_order(table_file: Path):
    dataset = open_path(str(table_file))
    order = [150, 3, 199, 0, 1, 2, 60, 59, 61, 62, 30, 29]
    assert [dataset[index].values["n"] for index in order] == order
    assert str(dataset[150].source) == f"{table_file}:151"
    assert pickle.loads(pickle.dumps(dataset))[7] == dataset[7]


def test_a_table_keeps_few_groups_in_memory(table_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tables, "CACHED_BYTES", 1)
    read = []
    former = tables.TableRows._group
    monkeypatch.setattr(tables.TableRows, "_group", lambda self, group: read.append(group) or former(self, group))
    (dataset,) = open_path(str(table_file))._parts
    assert [dataset[index].values["n"] for index in range(200)] == list(range(200))
    assert len(dataset._cache) == 1
    # Rows in order are made Python objects a page at a time, and a page ends with its group.
    assert read == [0, 1, 2, 3, 4, 5, 6]


def test_a_stream_of_a_table_begins_in_any_group(table_file: Path):
    stream = open_stream(str(table_file))
    reader = stream.open()
    for _ in range(65):
        next(reader)
    assert [row.values["n"] for row in stream.open(reader.position)] == list(range(65, 200))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_torn_table_is_noticed(table_file: Path, fault, share: float):
    whole = table_file.read_bytes()
    table_file.write_bytes(whole[: int(len(whole) * share)])
    kind = "Parquet" if table_file.suffix == ".parquet" else "Arrow"
    assert fault(table_file).startswith(f": not a whole {kind} file")


def test_an_arrow_stream_that_is_cut_between_two_batches_is_noticed(tmp_path: Path, fault):
    table = pyarrow.Table.from_pylist([{"n": n} for n in range(10)])
    with ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=5)
    whole = (tmp_path / "a.arrow").read_bytes()
    (tmp_path / "a.arrow").write_bytes(whole[:-8])  # the mark of the end: ff ff ff ff 00 00 00 00
    assert fault(tmp_path / "a.arrow").startswith(": not a whole Arrow file; it may have been cut off")


def test_a_table_without_rows(tmp_path: Path, fault):
    parquet.write_table(pyarrow.table({"a": pyarrow.array([], pyarrow.int64())}), tmp_path / "a.parquet")
    assert fault(tmp_path / "a.parquet") == ": the table has no rows"


def test_a_row_that_python_cannot_hold_hides_no_other_row(tmp_path: Path):
    text = pyarrow.array([b"good", b"\xff\xfe", b"fine"], pyarrow.binary()).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": text}), tmp_path / "a.parquet")
    dataset = open_path(str(tmp_path / "a.parquet"))
    assert [dataset[0].values["text"], dataset[2].values["text"]] == ["good", "fine"]
    with pytest.raises(DataError, match=r"a\.parquet:2: the row cannot be read: 'utf-8' codec"):
        dataset[1]
    reader = open_stream(str(tmp_path / "a.parquet")).open()
    assert next(reader).values["text"] == "good"
    with pytest.raises(DataError, match=r"a\.parquet:2: "):
        next(reader)
    assert next(reader).values["text"] == "fine"


def test_structs_have_the_keys_of_all_rows_and_text_stays_as_it_is(tmp_path: Path, read):
    # Arrow keeps one set of keys for a column of structs: what a row lacked comes back as null. JSON text does not.
    rows = [
        {"tool": {"name": "a", "properties": {"city": "x"}}, "text": '{"name": "a"}'},
        {"tool": {"name": "b", "properties": {"date": "y"}}, "text": '{"name": "b"}'},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    (first, _), (second, _) = read(tmp_path / "a.parquet")
    assert first["tool"]["properties"] == {"city": "x", "date": None}
    assert second["tool"]["properties"] == {"city": None, "date": "y"}
    assert [first["text"], second["text"]] == ['{"name": "a"}', '{"name": "b"}']


def test_values_of_every_type_come_as_python_holds_them(tmp_path: Path, read):
    row = {"d": Decimal("1.50"), "b": b"\x00", "f": float("inf"), "l": [[1], []], "s": {"x": None}}
    parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == [(row, 1)]
