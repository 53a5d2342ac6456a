"""`llmkit bench data` as a user sees it."""

import json

import pytest

from llmkit.bench import data, setup
from llmkit.cli import run

SHARED = {"foreign_load", "name", "settings"}


@pytest.fixture
def by_name(bench_run):
    return {result["name"]: result for result in bench_run.document["results"]}


def test_the_document_says_what_ran_on_which_machine(bench_run):
    assert set(bench_run.document) == {"command", "machine", "results", "ratios"}
    assert bench_run.document["command"] == "bench data"
    machine = bench_run.document["machine"]
    assert set(machine) == {"cores", "gemm_gflops", "memory_gbps", "foreign_load"}
    assert machine["cores"] >= 1
    assert machine["gemm_gflops"] > 0
    assert machine["memory_gbps"] > 0


def test_the_file_holds_the_same_document(bench_run):
    assert json.loads(bench_run.output.read_text(encoding="utf-8")) == bench_run.document


def test_every_part_has_its_contenders(by_name):
    assert list(by_name) == [
        "tokenize/llmkit.encode",
        "tokenize/llmkit.format",
        "tokenize/llmkit.prepare",
        "tokenize/datasets.map",
        "packing/llmkit",
        "packing/llmkit small",
        "packing/python",
        "start/cached",
        "streaming/llmkit",
        "convert/llmkit convert dataset",
        "convert/datasets",
    ]
    assert all(result.keys() >= SHARED for result in by_name.values())


def test_tokens_are_those_of_the_rows(by_name):
    one = by_name["tokenize/datasets.map"]
    assert one["settings"]["rows"] == 50
    assert one["tokens_per_second"] / one["rows_per_second"] == pytest.approx(one["settings"]["tokens_per_row"])
    assert 0 < one["settings"]["trained_share"] < 1


def test_ratios_are_those_of_the_results(bench_run, by_name):
    ratios = bench_run.document["ratios"]
    theirs = by_name["tokenize/datasets.map"]["rows_per_second"]
    for task in ("encode", "format", "prepare"):
        ours = by_name[f"tokenize/llmkit.{task}"]["rows_per_second"]
        assert ratios["datasets.map"][f"{task}_rows_per_second"] == pytest.approx(ours / theirs)
    small, python = by_name["packing/llmkit small"], by_name["packing/python"]
    assert ratios["python"]["packing_seconds"] == pytest.approx(small["seconds"] / python["seconds"])
    assert ratios["python"]["packing_num_bins"] == 1


def test_the_stages_of_a_start_are_all_of_it(by_name):
    start = by_name["start/cached"]
    stages = [start[f"{stage}_seconds"] for stage in ("imports", "open", "first_batch")]
    assert all(seconds >= 0 for seconds in stages)
    assert sum(stages) == pytest.approx(start["seconds"])
    assert start["settings"]["rows"] == 50


def test_a_whole_file_is_streamed(by_name):
    streaming = by_name["streaming/llmkit"]
    assert streaming["settings"]["file_bytes"] >= 1_000_000
    assert streaming["rows_per_second"] * streaming["seconds"] == pytest.approx(streaming["settings"]["rows"], abs=16)
    assert streaming["peak_memory_bytes"] >= max(streaming["memory_bytes"], default=0) * 0.95


def test_commands_that_convert_are_measured_whole(bench_run, by_name):
    ours, theirs = by_name["convert/llmkit convert dataset"], by_name["convert/datasets"]
    for one in (ours, theirs):
        assert one["rows_per_second"] * one["seconds"] == pytest.approx(50)
        assert one["peak_memory_bytes"] > 10_000_000
    ratios = bench_run.document["ratios"]["datasets"]
    assert ratios["convert_rows_per_second"] == pytest.approx(ours["rows_per_second"] / theirs["rows_per_second"])


def test_the_plot_is_a_picture(bench_run):
    assert bench_run.plot.read_bytes().startswith(b"\x89PNG")


def test_tables_go_to_standard_error(bench_run):
    for words in (
        "tokenize:",
        "datasets.map",
        "packing:",
        "start:",
        "streaming:",
        "convert:",
        "of the machine meanwhile",
    ):
        assert words in bench_run.stderr


@pytest.mark.parametrize(
    ("share", "words"),
    [(0.42, "noisy: other processes used 42%"), (0.03, "Other processes used 3%"), (None, "does not tell")],
)
def test_a_noisy_run_says_so(share, words, monkeypatch, capsys):
    class Load:
        def share(self):
            return share

    monkeypatch.setattr(setup, "ForeignLoad", Load)
    monkeypatch.setattr(setup.machine, "gemm_gflops", lambda: 1.0)
    monkeypatch.setattr(setup.machine, "memory_gbps", lambda: 1.0)
    document = data.measure(data.DataBench(None, None, (), None, None, 10, 1, 1, 1, 0.0))
    assert document["machine"]["foreign_load"] == share
    err = capsys.readouterr().err
    assert words in err
    assert ("noisy:" in err) == (share == 0.42)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--compare", "trl"], "--compare trl needs --python PATH"),
        (["--compare", "trl", "--python", "no/such/python"], "--python no/such/python: no such file"),
        (["--python", "no/such/python"], "has no effect without --compare trl"),
        (["--only", "everything"], "everything"),
        (["--threads", "100000"], "--threads 100000: this process may use"),
        (["rows.jsonl", "--accents", "0.5"], "has no effect on rows.jsonl"),
        (["no/such/rows.jsonl", "--only", "tokenize"], "no/such/rows.jsonl"),
    ],
)
def test_bad_input_is_told_of_before_anything_runs(arguments, words, capsys):
    assert run(["bench", "data", *arguments]) == 2
    assert words in capsys.readouterr().err
