"""Two runs of a benchmark beside each other: ratios, their spread, and what is noise."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmkit import cli


def write(path: Path, rate: float, seconds: float, spread: float = 0.02, **machine: Any) -> Path:
    document = {
        "command": "bench train",
        "machine": {"cores": 2, "gemm_gflops": 100.0, "foreign_load": 0.0, **machine},
        "results": [
            {"name": "train/llmkit", "settings": {"case": "sft", "model": str(path)}, "tokens_per_second": rate,
             "seconds": seconds, "seconds_min": 1.0, "spread": spread, "losses": [1.0]},
        ],
        "ratios": {},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def report(*arguments: object) -> int:
    return cli.run(["bench", "report", *map(str, arguments)])


def test_figures_have_ratios_and_the_spread_of_both(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one, other = write(tmp_path / "a.json", 100.0, 2.0), write(tmp_path / "b.json", 150.0, 2.05, 0.04)
    page = tmp_path / "report.html"
    assert report(one, other, "--json", "--plot", page) == 0
    rows = {row["settings"]["metric"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert rows.keys() == {"tokens_per_second", "seconds"}
    assert rows["tokens_per_second"]["ratio"] == 1.5
    assert rows["tokens_per_second"]["spread"] == pytest.approx(1.5 * 0.06)
    assert (rows["tokens_per_second"]["verdict"], rows["seconds"]["verdict"]) == ("better", "")
    text = page.read_text()
    assert text.startswith("<!doctype html>")
    assert "<th>first</th><th>second</th><th>second / first</th>" in text
    assert report(other, one, "--json") == 0
    rows = {row["settings"]["metric"]: row for row in json.loads(capsys.readouterr().out)["results"]}
    assert rows["tokens_per_second"]["verdict"] == "worse"


def test_another_machine_and_a_noisy_one_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write(tmp_path / "a.json", 100.0, 2.0)
    other = write(tmp_path / "b.json", 100.0, 2.0, gemm_gflops=200.0, foreign_load=0.5)
    assert report(one, other, "--plot", tmp_path / "x.png") == 0
    said = capsys.readouterr().err
    assert "the machines differ: gemm_gflops 100 and 200" in said
    assert "other processes used 50% of the machine in the second run" in said
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    one = write(tmp_path / "a.json", 100.0, 2.0)
    other = tmp_path / "b.json"
    other.write_text(one.read_text().replace("bench train", "bench data"))
    assert report(one, other) == 2
    assert "is of llmkit bench train, and" in capsys.readouterr().err
    other.write_text(one.read_text().replace('"sft"', '"dpo"'))
    assert report(one, other) == 2
    assert "no result in common" in capsys.readouterr().err
    other.write_text("{}")
    assert report(one, other) == 2
    assert "no result of llmkit bench" in capsys.readouterr().err
