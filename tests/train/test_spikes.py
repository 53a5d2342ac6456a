import json
import math
from pathlib import Path

import pytest

from llmkit.train.spikes import MAX_WARNINGS, MIN_STEPS, SpikeWatch
from llmkit.types import Source

ROWS = [Source("rows.jsonl", 3), Source("rows.jsonl", 3), Source("rows.jsonl", 9)]


def watch(tmp_path: Path, losses: list[float], factor: float | None = 3.0, window: int = 64) -> SpikeWatch:
    found = SpikeWatch(tmp_path / "spikes.jsonl", factor, window)
    for step, loss in enumerate(losses, start=1):
        found.see(step, loss, ROWS)
    return found


def spikes(tmp_path: Path) -> list[dict]:
    path = tmp_path / "spikes.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_spike_is_written_with_its_rows_and_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    watch(tmp_path, [2.0] * 4 + [1.0] * 4 + [6.0])
    assert spikes(tmp_path) == [{"step": 9, "loss": 6.0, "median": 1.5, "rows": ["rows.jsonl:3", "rows.jsonl:9"]}]
    assert "step 9: the loss is 6, 4.0 times the median of the steps before it; rows rows.jsonl:3, rows.jsonl:9" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("losses", "factor"),
    [
        ([1.0] * MIN_STEPS + [3.0], 3.0),  # not above
        ([1.0] * (MIN_STEPS - 1) + [9.0], 3.0),  # no median yet
        ([1.0] * MIN_STEPS + [9.0], None),
        ([1.0] * MIN_STEPS + [math.nan, math.inf], 3.0),  # told of elsewhere
        ([-1.0] * MIN_STEPS + [0.5], 3.0),  # no loss to multiply
    ],
)
def test_what_is_no_spike(tmp_path: Path, losses: list[float], factor: float | None):
    watch(tmp_path, losses, factor)
    assert spikes(tmp_path) == []


def test_old_losses_leave_the_window(tmp_path: Path):
    watch(tmp_path, [1.0] * 20 + [2.9] * 8 + [8.0], window=8)
    assert spikes(tmp_path) == []


def test_many_spikes_are_told_of_a_few_times_and_all_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    watch(tmp_path, [1.0] * 20 + [9.0] * 8)
    assert len(spikes(tmp_path)) == 8
    err = capsys.readouterr().err
    assert err.count("times the median") == MAX_WARNINGS
    assert f"Further spikes go to {tmp_path}/spikes.jsonl alone" in err


def test_a_resumed_watch_writes_what_the_whole_one_writes(tmp_path: Path):
    losses = [1.0] * 9 + [5.0, 1.0, 7.0, 8.0]
    (tmp_path / "whole").mkdir()
    whole = watch(tmp_path / "whole", losses)
    before = watch(tmp_path, losses[:11]).state_dict()
    # two more steps came after the checkpoint and will come again
    later = SpikeWatch(tmp_path / "spikes.jsonl", 3.0, 64)
    later.load_state_dict(json.loads(json.dumps(before)), 11)
    later.see(12, 7.0, ROWS)
    resumed = SpikeWatch(tmp_path / "spikes.jsonl", 3.0, 64)
    resumed.load_state_dict(json.loads(json.dumps(before)), 11)
    for step, loss in enumerate(losses[11:], start=12):
        resumed.see(step, loss, ROWS)
    assert spikes(tmp_path) == spikes(tmp_path / "whole")
    assert resumed.state_dict() == whole.state_dict()
