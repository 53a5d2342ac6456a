import math
from pathlib import Path
from typing import Any

import pytest

from llmkit.testing.tracker import TrackerContract
from llmkit.trackers.contract import Tracker
from llmkit.trackers.tensorboard import Config, build

pytest.importorskip("tensorboard", reason="needs the extra tensorboard")


class TestTensorBoard(TrackerContract):
    name = "tensorboard"


def open_tracker(run_dir: Path, *, resumed: bool = False) -> Tracker:
    return build(Config.model_validate({}), run_dir, {"seed": 7, "model": {"path": "builtin:tiny"}}, resumed)


def read(run_dir: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    return events


def test_every_number_is_a_scalar_of_its_own_name(tmp_path: Path):
    tracker = open_tracker(tmp_path)
    tracker.log({"step": 1, "time_seconds": 0.5, "loss": 2.0, "note": "warm"})
    tracker.log({"step": 2, "time_seconds": 1.0, "loss": float("nan"), "num_tokens": 640})
    tracker.close()
    events = read(tmp_path)
    assert set(events.Tags()["scalars"]) == {"time_seconds", "loss", "num_tokens"}
    assert [(event.step, event.value) for event in events.Scalars("num_tokens")] == [(2, 640.0)]
    first, second = events.Scalars("loss")
    assert (first.step, first.value) == (1, 2.0)
    assert math.isnan(second.value)


def test_the_configuration_and_words_are_text(tmp_path: Path):
    tracker = open_tracker(tmp_path)
    tracker.log({"step": 1, "note": "warm"})
    tracker.close()
    tensors = read(tmp_path).Tensors("config/text_summary")
    assert b"builtin:tiny" in tensors[0].tensor_proto.string_val[0]
    assert "note/text_summary" in read(tmp_path).Tags()["tensors"]


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(tmp_path: Path):
    first = open_tracker(tmp_path)
    for step in range(1, 6):
        first.log({"step": step, "loss": 1.0})
    first.close()
    second = open_tracker(tmp_path, resumed=True)
    for step in range(3, 8):
        second.log({"step": step, "loss": 2.0})
    second.close()
    assert [(event.step, event.value) for event in read(tmp_path).Scalars("loss")] == [
        (1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0), (6, 2.0), (7, 2.0)
    ]  # fmt: skip
