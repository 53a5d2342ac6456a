import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmkit import plugins
from llmkit.config.resolve import resolve
from llmkit.config.runs import SFTRun
from llmkit.data.datasets.token_rows import Cut, WindowRows
from llmkit.data.stores.contract import Tokens
from llmkit.errors import DataError
from llmkit.types import Record, Source


class Listed:
    """Sequences in memory."""

    def __init__(self, sequences, weights=None, files=()):
        self.files = list(files)
        self.sequences = sequences
        self.weights = weights
        self.num_read = 0

    @property
    def lengths(self):
        return np.array([len(ids) for ids in self.sequences], np.int64)

    def __len__(self):
        return len(self.sequences)

    def read(self, index, start=0, end=None):
        ids = np.array(self.sequences[index][start:end], np.int64)
        self.num_read += len(ids)
        weights = None if self.weights is None else np.array(self.weights[index][start:end])
        return Tokens(ids, weights)

    def source(self, index):
        return Source("corpus", index + 1)


def windows(sequences, *cut, weights=None, **options):
    rows = WindowRows(Listed(sequences, weights, [Path(__file__)]), Cut(*cut, **options), {})
    samples = [rows[index].tokens for index in range(len(rows))]
    return [(sample.token_ids, [int(weight) for weight in sample.loss_weights]) for sample in samples]


def test_windows_run_over_all_sequences():
    # Ten tokens in windows of four: the last has the two that are left.
    assert windows([[1, 2, 3], [4, 5, 6, 7, 8, 9], [10]], 4, 4) == [
        ([1, 2, 3, 4], [0, 1, 1, 1]),
        ([5, 6, 7, 8], [0, 1, 1, 1]),
        ([9, 10], [0, 1]),
    ]


def test_a_token_can_be_put_behind_every_sequence():
    assert windows([[1, 2], [3], []], 3, 3, eos_token_id=0) == [
        ([1, 2, 0], [0, 1, 1]),
        ([3, 0, 0], [0, 1, 1]),
    ]


def test_what_overlaps_is_trained_once():
    assert windows([list(range(1, 8))], 4, 2) == [
        ([1, 2, 3, 4], [0, 1, 1, 1]),
        ([3, 4, 5, 6], [0, 0, 1, 1]),
        ([5, 6, 7], [0, 0, 1]),
    ]


def test_what_overlaps_can_be_trained_again():
    assert windows([list(range(1, 8))], 4, 2, train_overlap=True) == [
        ([1, 2, 3, 4], [0, 1, 1, 1]),
        ([3, 4, 5, 6], [0, 1, 1, 1]),
        ([5, 6, 7], [0, 1, 1]),
    ]


def test_a_last_token_alone_takes_the_one_before_along():
    # Alone it would be the first of its window, which nothing predicts, and so never be trained.
    assert windows([[1, 2, 3], [4]], 3, 3) == [([1, 2, 3], [0, 1, 1]), ([3, 4], [0, 1])]


def test_a_last_window_that_is_not_full_can_be_left_out():
    sequences = [list(range(7))]
    assert windows(sequences, 3, 3, drop_last=True) == [([0, 1, 2], [0, 1, 1]), ([3, 4, 5], [0, 1, 1])]
    assert len(windows(sequences, 7, 7, drop_last=True)) == 1
    with pytest.raises(DataError, match="7 tokens in 1 sequences make no window of 8"):
        windows(sequences, 8, 8, drop_last=True)


def test_stored_weights_are_kept():
    assert windows([[1, 2], [3, 4]], 3, 3, weights=[[1.0, 0.0], [1.0, 0.0]]) == [
        ([1, 2, 3], [0, 0, 1]),
        ([3, 4], [0, 0]),
    ]


def test_only_the_tokens_of_a_window_are_read():
    sequences = Listed([[1] * 1000, [2] * 1000], files=[Path(__file__)])
    rows = WindowRows(sequences, Cut(10, 10), {})
    record = rows[120]
    assert record.tokens.token_ids == [2] * 10
    assert record.source == Source("corpus", 2)
    assert sequences.num_read == 10


@given(
    sequences=st.lists(st.lists(st.integers(0, 99), max_size=9), min_size=1, max_size=9),
    window=st.integers(2, 7),
    overlap=st.integers(0, 6),
    eos=st.sampled_from([None, 100]),
)
@settings(max_examples=300, deadline=None)
def test_every_token_is_in_a_window_and_none_is_trained_twice(sequences, window, overlap, eos):
    flat = [token for ids in sequences for token in [*ids, *([] if eos is None else [eos])]]
    stride = max(1, window - overlap)
    if not flat:
        with pytest.raises(DataError):
            windows(sequences, window, stride, eos_token_id=eos)
        return
    rows = windows(sequences, window, stride, eos_token_id=eos)
    starts = [min(number * stride, max(0, len(flat) - 2)) if number else 0 for number in range(len(rows))]
    times_trained = [0] * len(flat)
    covered = set()
    for start, (ids, weights) in zip(starts, rows, strict=True):
        assert ids == flat[start : start + len(ids)]
        assert len(ids) <= window
        assert weights[0] == 0
        covered |= set(range(start, start + len(ids)))
        for position, weight in enumerate(weights, start):
            times_trained[position] += weight
    assert covered == set(range(len(flat)))
    assert max(times_trained) <= 1
    if stride == window - 1:
        assert times_trained == [0, *[1] * (len(flat) - 1)], "every token but the very first is trained once"


def build(**options: Any):
    plugin = plugins.load("datasets", "tokens")
    return plugin.build(plugin.Config(**options))


def write_lines(path: Path, *rows: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_without_a_window_each_sequence_is_a_row(tmp_path):
    write_lines(tmp_path / "a.jsonl", {"input_ids": [1, 2, 3]}, {"input_ids": [4, 5], "labels": [-100, 5]})
    rows = build(path=str(tmp_path / "a.jsonl"))
    assert len(rows) == 2
    record = rows[1]
    assert isinstance(record, Record)
    assert record.tokens.token_ids == [4, 5]
    assert record.tokens.loss_weights == [0.0, 1.0]
    assert record.source == record.tokens.source == Source(str(tmp_path / "a.jsonl"), 2)
    assert rows[0].tokens.loss_weights == [0.0, 1.0, 1.0]
    with pytest.raises(IndexError):
        rows[2]
    assert len(build(path=str(tmp_path / "a.jsonl"), limit=1)) == 1


def test_the_files_of_a_directory_count_as_one_list(tmp_path):
    write_lines(tmp_path / "part-1.jsonl", {"input_ids": [1, 2]}, {"input_ids": [3]})
    write_lines(tmp_path / "part-2.jsonl", {"input_ids": [4, 5, 6]})
    (tmp_path / "readme.txt").write_text("about")
    rows = build(path=str(tmp_path), window=4)
    assert [rows[index].tokens.token_ids for index in range(len(rows))] == [[1, 2, 3, 4], [5, 6]]
    assert rows[1].source == Source(str(tmp_path / "part-2.jsonl"), 1)
    assert [build(path=str(tmp_path))[index].source.line for index in range(3)] == [1, 2, 1]


def test_the_fingerprint_follows_contents_and_options(tmp_path):
    path = tmp_path / "a.jsonl"
    write_lines(path, {"input_ids": [1, 2, 3, 4]})
    options: list[dict[str, Any]] = [{}, {"window": 2}, {"window": 3}, {"window": 3, "stride": 2}, {"limit": 1}]
    first = [build(path=str(path), **chosen).fingerprint() for chosen in options]
    assert len(set(first)) == len(first)
    assert [build(path=str(path), **chosen).fingerprint() for chosen in options] == first
    write_lines(path, {"input_ids": [1, 2, 3, 5]})
    assert build(path=str(path)).fingerprint() != first[0]


def test_the_store_and_its_options_are_chosen_in_the_configuration(tmp_path):
    path = tmp_path / "corpus.bin"
    np.arange(10, dtype=np.uint32).tofile(path)
    common = ["dataset.name=tokens", f"dataset.path={path}", "dataset.window=4", "output_dir=x"]
    run = resolve(
        SFTRun,
        command="train/sft",
        overrides=[*common, "dataset.store.name=memmap", "dataset.store.dtype=uint32"],
        environ={},
    ).run
    rows = plugins.load("datasets", "tokens").build(run.dataset)
    assert [rows[index].tokens.token_ids for index in range(len(rows))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    narrow = resolve(
        SFTRun,
        command="train/sft",
        overrides=[*common, "dataset.store.name=memmap", "dataset.store.dtype=uint16"],
        environ={},
    ).run
    assert plugins.load("datasets", "tokens").build(narrow.dataset).fingerprint() != rows.fingerprint()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stride": 3}, "stride is for windows"),
        ({"eos_token_id": 0}, "eos_token_id is for windows"),
        ({"window": 4, "stride": 5}, r"stride \(5\) is greater than window \(4\)"),
        ({"window": 1}, "greater than or equal to 2"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options, said):
    with pytest.raises(ValidationError, match=said):
        build(path="corpus.jsonl", **options)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.csv"], r"no store has files that end so.*jsonl \(\.jsonl\)"),
        (["a.jsonl", "b.parquet"], "several stores: choose with --set dataset.store=jsonl or parquet"),
        ([], "no store has files that end so"),
    ],
)
def test_a_directory_must_be_of_one_store(tmp_path, names, said):
    for name in names:
        (tmp_path / name).write_text("x")
    with pytest.raises(DataError, match=said):
        build(path=str(tmp_path))


def test_what_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.jsonl: no such file"):
        build(path=str(tmp_path / "gone.jsonl"))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"input_ids": [1, -2]}, r"a\.jsonl:2: .*-2"),
        ({"input_ids": [1, 2], "labels": [1]}, r"a\.jsonl:2: .*1 values, but there are 2 tokens"),
        ({"input_ids": [1, 2], "loss_mask": [0, 3]}, r"a\.jsonl:2: .*must be 0 or 1"),
        ({"input_ids": [1, 2.5]}, r"a\.jsonl:2: .*2\.5"),
        ({"input_ids": [1, 2**40]}, r"a\.jsonl:2: .*1099511627776"),
    ],
)
def test_faulty_tokens_are_named_with_their_line(tmp_path, row, said):
    write_lines(tmp_path / "a.jsonl", {"input_ids": [1]}, row)
    rows = build(path=str(tmp_path / "a.jsonl"))
    assert rows[0].tokens.token_ids == [1]
    with pytest.raises(DataError, match=said):
        rows[1]
