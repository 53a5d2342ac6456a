import json
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from llmkit.errors import TrainingError
from llmkit.testing.tracker import TrackerContract
from llmkit.trackers.metrics_file import MetricsFile, decode_line, encode_line, read_lines, read_metrics


class TestJSONL(TrackerContract):
    name = "jsonl"


def test_lines_are_appended_to_what_is_there(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    for step in (1, 2):
        file = MetricsFile(path)
        file.log({"step": step})
        file.close()
    assert path.read_bytes() == b'{"step": 1}\n{"step": 2}\n'


def test_what_json_cannot_hold_is_null():
    assert encode_line({"step": 1, "loss": float("nan"), "kl": float("-inf")}) == (
        b'{"step": 1, "loss": null, "kl": null}\n'
    )


def test_text_stays_readable_and_lone_surrogates_stay_json():
    line = encode_line({"step": 1, "note": "ü\ud800\n"})
    assert "ü".encode() in line
    assert json.loads(line)["note"] == "ü\ud800\n"
    assert line.count(b"\n") == 1


@pytest.mark.parametrize("raw", [b'{"step": 1, "lo', b"[1]", b"{}", b'{"step": "1"}', b"\xff\xfe", b"null\n"])
def test_damaged_lines_are_told_from_whole_ones(raw: bytes):
    assert decode_line(raw) is None


def test_reading_passes_over_damaged_lines(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_bytes(b'{"step": 1}\nrubbish\n\n{"step": 2}\n{"st')
    assert read_metrics(path) == [{"step": 1}, {"step": 2}]
    assert [line.metrics is None for line in read_lines(path)] == [False, True, False, True]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is full")
def test_a_full_disk_is_one_clear_error(tmp_path: Path):
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    file = MetricsFile(tmp_path / "metrics.jsonl")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: no space left"):
        file.log({"step": 1})
    with pytest.raises(TrainingError, match="Invalid argument"):  # a device has nothing to bring to the disk
        file.close()


def test_a_place_that_cannot_be_opened_is_named(tmp_path: Path):
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: cannot be written"):
        MetricsFile(tmp_path / "none" / "metrics.jsonl")


LOG_BEYOND_THE_LIMIT = """
import sys
from pathlib import Path
from llmkit.errors import TrainingError
from llmkit.trackers.metrics_file import MetricsFile
file = MetricsFile(Path(sys.argv[1]))
try:
    for step in range(1000):
        file.log({"step": step, "note": "x" * 70})
except TrainingError as error:
    print(error)
"""


def test_a_line_that_fits_only_in_part_is_taken_back(tmp_path: Path):
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    path = tmp_path / "metrics.jsonl"
    command = [sys.executable, "-c", LOG_BEYOND_THE_LIMIT, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert "metrics.jsonl: cannot be written: File too large" in done.stdout, done.stderr
    content = path.read_bytes()
    assert 900 < len(content) <= 1000
    assert [line.metrics is not None and line.metrics["step"] for line in read_lines(path)] == list(range(10))
    assert content.endswith(b"\n")
