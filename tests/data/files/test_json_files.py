"""JSON Lines and JSON documents of every layout."""

import json
import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.data.files import json_document, json_scanner
from llmkit.data.files.reading import open_path, open_stream
from llmkit.errors import DataError

ROWS = [{"a": 1, "text": "héllo"}, {"a": 2, "text": "line\nbreak"}]


def test_json_lines(write, read):
    assert read(write("a.jsonl", ROWS)) == [(ROWS[0], 1), (ROWS[1], 2)]
    assert read(write("a.ndjson", ROWS)) == [(ROWS[0], 1), (ROWS[1], 2)]


def test_blank_lines_are_skipped_and_counted(write, read):
    assert read(write("a.jsonl", '\n{"a": 1}\n  \n\n{"a": 2}\r\n\n')) == [({"a": 1}, 2), ({"a": 2}, 5)]


def test_a_whole_last_line_needs_no_newline(write, read):
    assert read(write("a.jsonl", '{"a": 1}\n{"a": 2}')) == [({"a": 1}, 1), ({"a": 2}, 2)]


def test_numbers_that_json_lacks_pass_as_they_are(write):
    dataset = open_path(str(write("a.jsonl", '{"a": NaN, "b": [Infinity, -Infinity]}\n')))
    values = dataset[0].values
    assert values["a"] != values["a"]
    assert values["b"] == [float("inf"), float("-inf")]


def test_rows_of_an_array_know_their_lines(write, read):
    path = write("a.json", '[\n  {"a": 1},\n\n  {\n    "a": 2\n  }\n]\n')
    assert read(path) == [({"a": 1}, 2), ({"a": 2}, 4)]


def test_a_json_file_may_hold_lines(write, read):
    assert read(write("a.json", ROWS)) == [(ROWS[0], 1), (ROWS[1], 2)]


def test_a_json_file_may_hold_objects_one_after_another(write, read):
    assert read(write("a.json", '{\n"a": 1}{"a": 2}\n\n{"a": 3}')) == [({"a": 1}, 1), ({"a": 2}, 2), ({"a": 3}, 4)]
    # Each of these objects could hold the list of rows by itself, but there are two of them.
    two = '{"conversations": [{"x": 1}],\n "b": 1}\n{"conversations": [{"x": 2}], "b": 2}'
    assert [line for _, line in read(write("b.json", two))] == [1, 3]


def test_a_list_within_an_object(write, read):
    path = write("a.json", '{"about": {"data": []},\n "data": [{"a": 1},\n {"a": 2}], "n": {"x": "]"}}')
    assert read(path) == [({"a": 1}, 2), ({"a": 2}, 3)]


@settings(deadline=None, max_examples=60)
@given(
    rows=st.lists(
        st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.one_of(
                st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
                st.floats(allow_nan=False),
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
    ascii_only=st.booleans(),
    block=st.integers(1, 40),
)
def test_what_is_written_is_read_however_small_the_blocks(
    tmp_path_factory: pytest.TempPathFactory, rows: list, indent: int | None, ascii_only: bool, block: int
):
    directory = tmp_path_factory.mktemp("rows")
    documents = {
        "list.json": rows,
        "wrapped.json": {"version": [1, 2.5], "data": rows, "n": {"x": "]"}},
    }
    contents = {name: json.dumps(value, indent=indent, ensure_ascii=ascii_only) for name, value in documents.items()}
    contents["a.jsonl"] = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in rows)
    contents["objects.json"] = " ".join(json.dumps(row, indent=indent, ensure_ascii=ascii_only) for row in [{}, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_scanner, "BLOCK", block)
        for name, content in contents.items():
            (directory / name).write_text(content, encoding="utf-8")
            dataset = open_path(str(directory / name))
            found = [dataset[index] for index in range(len(dataset))]
            assert [row.values for row in found] == ([{}, *rows] if name == "objects.json" else rows)
            assert list(open_stream(str(directory / name)).open()) == found


def test_a_fault_is_found_where_it_is_however_small_the_blocks(write, fault, monkeypatch):
    for block in (1, 3, 7, 1 << 20):
        monkeypatch.setattr(json_scanner, "BLOCK", block)
        assert fault(write("a.json", '[{"é": "ü"},\n {"a": tru}]')).startswith(":2:8: not valid JSON: Expecting value")
        assert fault(write("b.json", b'[{"a": 1},\n{"\xc3\xa9": "\xe9t\xe9"}]')).startswith(":2:8: byte 19 (0xe9)")


def test_a_large_document_needs_little_memory(write):
    text = json.dumps({"data": [{"n": n, "text": "word é " * 60} for n in range(20_000)]}, ensure_ascii=False)
    path = write("large.json", text)
    size = path.stat().st_size
    assert size > 9_000_000
    del text
    tracemalloc.start()
    dataset = open_path(str(path))
    assert dataset[len(dataset) - 1].values["n"] == 19_999
    num_rows = sum(1 for _ in open_stream(str(path)).open())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert num_rows == len(dataset) == 20_000
    # Two readers' blocks of 1 MB, as bytes and as text, and 24 bytes a row; parsed as a whole it would be over 20 MB.
    assert peak < 8_000_000


def test_a_stream_looks_for_the_list_in_an_object_once(write, monkeypatch):
    searched = []
    former = json_document._lists
    monkeypatch.setattr(json_document, "_lists", lambda scanner: searched.append(1) or former(scanner))
    stream = open_stream(str(write("a.json", '{"data": [{"a": 1}]}')))
    for _ in range(3):
        assert [row.values for row in stream.open()] == [{"a": 1}]
    assert len(searched) == 1


def test_a_value_longer_than_a_block_is_read_a_few_times_and_not_once_a_block(write, monkeypatch):
    monkeypatch.setattr(json_scanner, "BLOCK", 64)
    fills = []
    fill = json_scanner.JSONScanner._fill
    monkeypatch.setattr(json_scanner.JSONScanner, "_fill", lambda self: fills.append(1) or fill(self))
    dataset = open_path(str(write("a.json", json.dumps([{"text": "x" * 100_000}]))))
    assert len(dataset[0].values["text"]) == 100_000
    assert len(fills) < 16  # the window doubles: 64 * 2**11 > 100,000


def test_a_key_that_comes_twice_is_a_fault_of_its_row(write, fault):
    double = '{"a": {"b": 1, "c": 2, "b": 3}}'
    assert (
        fault(write("a.jsonl", f'{{"a": 1}}\n{double}\n'))
        == ":2: the key 'b' comes twice in one object; keep one of them"
    )
    assert fault(write("a.json", f'[{{"a": 1}},\n{double}]')).startswith(":2: the key 'b' comes twice")


def test_json_nested_too_deeply_is_an_error(write, fault):
    deep = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert fault(write("deep.jsonl", deep + "\n")) == ":1: JSON nested too deeply to be read"
    assert fault(write("deep.json", f"[{deep}]")) == ":1: JSON nested too deeply to be read"


def test_a_faulty_row_hides_no_other_row(write):
    path = str(write("a.jsonl", '{"a": 1}\n{a: 2}\n[3]\n{"a": "\xe9"}\n'.encode("latin-1") + b'{"a": 5}\n'))
    dataset = open_path(path)
    reader = open_stream(path).open()
    for index, message in ((1, ":2:2: not valid"), (2, ":3: a row must be a JSON object"), (3, ":4:8: byte 27 (0xe9)")):
        with pytest.raises(DataError) as indexed:
            dataset[index]
        assert str(indexed.value).startswith(f"{path}{message}")
    rows, faults = [], []
    while len(rows) + len(faults) < 5:
        try:
            rows.append(next(reader).values["a"])
        except DataError as error:
            faults.append(str(error))
    assert rows == [1, 5] == [dataset[0].values["a"], dataset[4].values["a"]]
    assert len(faults) == 3
    reader.close()


def test_data_sets_and_streams_can_be_sent_to_other_processes(write):
    path = str(write("a.jsonl", ROWS))
    dataset, stream = open_path(path), open_stream(path)
    assert dataset[1].values == ROWS[1]
    assert pickle.loads(pickle.dumps(dataset))[1] == dataset[1]
    assert next(pickle.loads(pickle.dumps(stream)).open()) == dataset[0]


def test_rows_end_with_an_index_error(write):
    for name, content in (("a.jsonl", ROWS), ("a.json", json.dumps(ROWS)), ("a.csv", "a\n1\n2\n"), ("a.txt", "1\n2\n")):
        dataset = open_path(str(write(name, content)))
        assert dataset[1] == dataset[1]
        for index in (2, -1):
            with pytest.raises(IndexError):
                dataset[index]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux shows them")
def test_many_files_do_not_use_up_the_open_files(tmp_path: Path):
    for number in range(200):
        (tmp_path / f"{number:03}.jsonl").write_text(f'{{"n": {number}}}\n')
    before = len(list(Path("/proc/self/fd").iterdir()))
    dataset = open_path(str(tmp_path))
    assert [dataset[index].values["n"] for index in range(200)] == list(range(200))
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 64
