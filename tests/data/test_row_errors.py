import json

import pytest

from llmkit.data.row_errors import RowErrors
from llmkit.errors import DataError


def faults(path):
    return [json.loads(line)["error"] for line in path.read_text().splitlines()]


def test_raise_stops_at_the_first_fault_and_names_the_way_out():
    with pytest.raises(DataError, match=r"a\.jsonl:3: no text \(or leave faulty rows out: --set data\.on_error=skip\)"):
        RowErrors("raise", 10).handle(DataError("a.jsonl:3: no text"))


def test_skip_counts_and_writes_down_every_fault(tmp_path):
    errors = RowErrors("skip", 2, tmp_path / "deep" / "skipped.jsonl")
    errors.handle(DataError("a.jsonl:3: no text"))
    errors.handle(DataError("a.jsonl:7: ünknown role"))
    assert errors.num_skipped == 2
    assert faults(tmp_path / "deep" / "skipped.jsonl") == ["a.jsonl:3: no text", "a.jsonl:7: ünknown role"]


def test_one_more_than_the_limit_is_an_error_that_names_the_report(tmp_path):
    errors = RowErrors("skip", 1, tmp_path / "skipped.jsonl")
    errors.handle(DataError("a.jsonl:3: no text"))
    with pytest.raises(DataError, match=r"2 faulty rows, more than data\.max_skipped=1 .*skipped\.jsonl.*a\.jsonl:4"):
        errors.handle(DataError("a.jsonl:4: no text"))
    assert len(faults(tmp_path / "skipped.jsonl")) == 2


def test_a_moved_report_goes_on_and_tells_nothing_twice(tmp_path):
    final = tmp_path / "run" / "skipped.jsonl"
    first = RowErrors("skip", 9, tmp_path / "scratch")
    first.handle(DataError("a.jsonl:3: no text"))
    first.move_report(final)
    first.handle(DataError("a.jsonl:4: no text"))
    assert not (tmp_path / "scratch").exists()
    resumed = RowErrors("skip", 9, tmp_path / "scratch")
    resumed.handle(DataError("a.jsonl:4: no text"))
    resumed.handle(DataError("a.jsonl:5: no text"))
    resumed.move_report(final)
    assert faults(final) == ["a.jsonl:3: no text", "a.jsonl:4: no text", "a.jsonl:5: no text"]


def test_without_faults_there_is_no_report(tmp_path):
    RowErrors("skip", 9, tmp_path / "scratch").move_report(tmp_path / "final")
    assert list(tmp_path.iterdir()) == []
