import json
import sqlite3
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmkit.testing.tracker import TrackerContract
from llmkit.trackers.trackio import Config, build

pytestmark = pytest.mark.skipif(find_spec("trackio") is None, reason="needs the extra trackio")


@pytest.fixture(scope="module", autouse=True)
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where trackio keeps its databases, which it settles when it is imported for the first time."""
    path = tmp_path_factory.mktemp("trackio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(path))
        yield path


class TestTrackio(TrackerContract):
    name = "trackio"


def test_steps_are_stored_and_a_resumed_run_goes_on(tmp_path: Path, database: Path):
    for resumed, step in ((False, 1), (True, 2)):
        tracker = build(Config(project="sums", run_name="first"), tmp_path, {"seed": 7}, resumed)
        tracker.log({"step": step, "loss": 2.25, "kl": float("nan"), "note": "warm"})
        tracker.close()
    with sqlite3.connect(database / "sums.db") as connection:
        stored = sorted(connection.execute("select run_name, step, metrics from metrics"))
    connection.close()
    assert [(name, step) for name, step, _ in stored] == [("first", 1), ("first", 2)]
    assert json.loads(stored[0][2])["loss"] == 2.25
