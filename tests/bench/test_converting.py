"""`llmkit bench convert` as a user sees it."""

import json
from pathlib import Path

import pytest

from llmkit.bench.converting import CASES
from llmkit.bench.converting_cli import Conversion
from llmkit.cli import run
from llmkit.testing.tiny import tiny_model


def test_what_can_be_asked_for_is_what_there_is():
    assert [one.value for one in Conversion] == list(CASES)


@pytest.mark.slow
def test_every_conversion_is_measured_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    line = ["bench", "convert", "--model", "5m", "--repeats", "1", "--output", str(tmp_path / "c.json")]
    assert run([*line, "--plot", str(tmp_path / "c.html")]) == 0
    document = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in document["results"]] == [f"checkpoint/{name}" for name in CASES]
    for one in document["results"]:
        assert one["bytes_per_second"] * one["seconds"] == pytest.approx(one["settings"]["bytes"])
        assert one["peak_memory_bytes"] > 10_000_000
        assert one["cpu_seconds"] > 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.html", "c.json"]
    monkeypatch.setattr("tempfile.tempdir", None)


def test_a_conversion_that_fails_says_why(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    for file in Path(tiny_model()).iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    (weights,) = model.glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    assert run(["bench", "convert", "--model", str(model), "--only", "float16", "--repeats", "1"]) == 1
    err = capsys.readouterr().err
    assert "float16: exit code 2" in err
    assert "is missing" in err
