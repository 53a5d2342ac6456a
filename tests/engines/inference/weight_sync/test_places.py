import os
import re
import subprocess
import sys

import pytest

from llmkit.engines.inference.weight_sync import places
from llmkit.engines.inference.weight_sync.places import WeightsPlace
from llmkit.errors import EngineError


def test_a_renewed_place_is_empty_and_the_former_one_is_gone(tmp_path):
    place = WeightsPlace(tmp_path, in_memory=False)
    first = place.renew()
    (first / "model.safetensors").write_bytes(b"x")
    second = place.renew()
    assert not first.exists()
    assert [path.name for path in second.iterdir()] == [places.LOCK]
    place.remove()
    place.remove()
    assert list(tmp_path.iterdir()) == []


def test_too_little_room_is_told_before_anything_is_written(tmp_path):
    place = WeightsPlace(tmp_path, in_memory=False)
    with pytest.raises(EngineError, match=re.escape(f"{tmp_path} has room for")):
        place.check_room(1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_files_of_the_update_before_count_as_room(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "room", lambda where, in_memory: 100)
    place = WeightsPlace(tmp_path, in_memory=True)
    with pytest.raises(EngineError, match="or make /dev/shm larger"):
        place.check_room(150)
    (place.renew() / "model.safetensors").write_bytes(bytes(50))
    place.check_room(150)


def test_files_in_memory_may_not_take_more_than_is_available(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "memory", lambda: {"available": places.SPARE + 5})
    assert places.room(tmp_path, in_memory=True) == 5
    assert places.room(tmp_path, in_memory=False) > 5


def test_files_of_a_killed_process_give_way_and_those_of_a_living_one_stay(tmp_path):
    script = (
        "import os, sys, time; from pathlib import Path\n"
        "from llmkit.engines.inference.weight_sync.places import WeightsPlace\n"
        "place = WeightsPlace(Path(sys.argv[1]), in_memory=True)\n"
        "(place.renew() / 'model.safetensors').write_bytes(b'x')\n"
        "print('ready', flush=True); time.sleep(600)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"ready\n"
        [theirs] = tmp_path.iterdir()
        place = WeightsPlace(tmp_path, in_memory=True)
        place.renew()
        assert theirs.exists()
        other.kill()
    place.renew()
    assert not theirs.exists()
    place.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_just_being_made_stays(tmp_path):
    young = tmp_path / f"{places.PREFIX}young"
    young.mkdir()
    places.remove_forgotten(tmp_path)
    assert young.exists()
    os.utime(young, (0, 0))
    places.remove_forgotten(tmp_path)
    assert not young.exists()


def test_a_place_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EngineError, match="no directory can be made in"):
        WeightsPlace(tmp_path / "file", in_memory=False).renew()
