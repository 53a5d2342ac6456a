import time
from pathlib import Path

import pytest

from llmkit.errors import PluginError
from llmkit.testing.tracker import TrackerContract
from llmkit.trackers.wandb import Config, build
from llmkit.trackers.wandb_run import ID_FILE

pytest.importorskip("wandb", reason="needs the extra wandb")


class TestWandb(TrackerContract):
    name = "wandb"
    options = {"mode": "offline"}  # noqa: RUF012 - declared as a class variable by the contract


def stored(run_dir: Path) -> bytes:
    """Everything that was written for `wandb sync`."""
    return b"".join(path.read_bytes() for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")))


def test_an_offline_run_is_stored_in_the_run_directory(tmp_path: Path):
    config = Config(mode="offline", project="sums", run_name="first", api_key="f" * 40)  # pyright: ignore[reportArgumentType]
    tracker = build(config, tmp_path, {"optim": {"learning_rate": 0.125}}, False)
    tracker.log({"step": 1, "loss": 2.25})
    tracker.close()
    expected = (b"sums", b"first", b"learning_rate", b"0.125", b"loss", b"2.25")
    # A process of wandb's own writes the file, on a busy machine a little after the run is closed.
    deadline = time.monotonic() + 30
    while not all(part in stored(tmp_path) for part in expected) and time.monotonic() < deadline:
        time.sleep(0.1)
    content = stored(tmp_path)
    for part in expected:
        assert part in content
    assert b"f" * 40 not in content


def test_a_resumed_run_goes_on_under_its_identity(tmp_path: Path):
    for resumed in (False, True):
        tracker = build(Config(mode="offline"), tmp_path, {}, resumed)
        tracker.log({"step": 1, "loss": 1.0})
        tracker.close()
    run_id = (tmp_path / ID_FILE).read_text().strip()
    directories = [path.name for path in tmp_path.glob("wandb/offline-run-*")]
    assert len(directories) == 2
    assert all(run_id in name for name in directories)


def test_a_new_run_in_a_used_directory_gets_a_new_identity(tmp_path: Path):
    ids: set[str] = set()
    for _ in range(2):
        build(Config(mode="offline"), tmp_path, {}, False).close()
        ids.add((tmp_path / ID_FILE).read_text())
    assert len(ids) == 2


def test_a_refused_key_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    config = Config(mode="online", api_key="too short")  # pyright: ignore[reportArgumentType]
    with pytest.raises(PluginError, match=r"'wandb' cannot start: .*mode: offline") as caught:
        build(config, tmp_path, {}, False)
    assert "too short" not in str(caught.value)
