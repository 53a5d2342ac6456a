"""The file of a run: nothing in it is lost or doubled, whatever its end looks like."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.errors import CheckpointError, TrainingError
from llmkit.rollout.ledger import Ledger, look_through
from llmkit.rollout.lines import encode


def line(group: int, member: int) -> dict[str, object]:
    return {"group_id": group, "member": member, "prompt": "é\u2028?", "completion": "x", "reward": 1.0}


def places(path: Path) -> dict[int, int]:
    return look_through(path).members


def test_what_was_added_is_there_again(tmp_path: Path):
    ledger = Ledger(tmp_path / "r.jsonl")
    ledger.add([line(0, 0)])
    ledger.add([line(5, 2), line(5, 0)])
    ledger.close()
    again = Ledger(tmp_path / "r.jsonl")
    assert again.done.num_rollouts == 3
    assert again.done.missing(0, 2) == [1]
    assert again.done.missing(5, 4) == [1, 3]
    assert again.done.missing(1, 2) == [0, 1]
    again.close()


@given(st.integers(0, 400))
def test_cut_anywhere_the_whole_lines_stay_and_the_rest_is_made_again(
    tmp_path_factory: pytest.TempPathFactory, cut: int
):
    path = tmp_path_factory.mktemp("cut") / "r.jsonl"
    whole = [encode(line(number, 0)) for number in range(4)]
    content = b"".join(whole)[:cut]
    path.write_bytes(content)
    kept = sum(len(b"".join(whole[: number + 1])) <= cut for number in range(4))
    ledger = Ledger(path)
    assert [number for number in range(4) if ledger.done.has(number, 0)] == list(range(kept))
    assert path.read_bytes() == b"".join(whole[:kept])
    ledger.add([line(9, 0)])
    ledger.close()
    assert places(path) == {**dict.fromkeys(range(kept), 1), 9: 1}


def test_zeros_that_a_power_failure_leaves_at_the_end_are_cut_off(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode(line(0, 0)) + b"\0" * 100 + b"\n" + b"\0" * 50)
    ledger = Ledger(path)
    assert ledger.done.torn_bytes == 151
    assert path.read_bytes() == encode(line(0, 0))
    ledger.close()


def test_damage_before_whole_lines_is_told_and_nothing_is_changed(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    content = encode(line(0, 0)) + b'{"group_id": 1\n' + encode(line(2, 0))
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"r.jsonl:2: this line is damaged, and whole ones follow it"):
        Ledger(path)
    assert path.read_bytes() == content


def test_two_files_put_together_are_told(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode(line(0, 0)) * 2)
    with pytest.raises(CheckpointError, match=r"r.jsonl:2: member 0 of group 0 is there for the second time"):
        Ledger(path)


def test_a_file_of_another_program_is_told(tmp_path: Path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(encode({name: value for name, value in line(0, 0).items() if name != "member"}))
    with pytest.raises(CheckpointError, match="no 'member': another program"):
        Ledger(path)


def test_a_full_disk_leaves_whole_lines_only(tmp_path: Path):
    ledger = Ledger(tmp_path / "r.jsonl")
    ledger.add([line(0, 0)])
    real = ledger._file

    class Full:
        """Takes ten bytes, and then no more."""

        taken = 0

        def write(self, content: memoryview) -> int:
            if self.taken:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.taken = real.write(content[:10])
            return self.taken

        def __getattr__(self, name: str):
            return getattr(real, name)

    ledger._file = Full()  # type: ignore[assignment]
    with pytest.raises(TrainingError, match="no space left"):
        ledger.add([line(1, 0)])
    assert (tmp_path / "r.jsonl").read_bytes() == encode(line(0, 0))
    assert not ledger.done.has(1, 0)
    real.close()
