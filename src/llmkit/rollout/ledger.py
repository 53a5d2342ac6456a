"""The file that a run writes its rollouts to, which is also its memory of what is done."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.disk import sync, writing
from llmkit.errors import CheckpointError
from llmkit.rollout.lines import encode, read_lines
from llmkit.trackers.metrics_file import append_line

SYNC_SECONDS = 2.0
"""How often what was written is sent to the disk itself: so much a power failure may take. A kill takes nothing."""


@dataclass
class Done:
    """Which rollouts are in the file.

    Attributes:
        members: of each group, a bit for each member that is there.
        num_rollouts: in all.
        torn_bytes: at the end, of lines that a kill or a power failure cut short.
    """

    members: dict[int, int] = field(default_factory=dict[int, int])
    num_rollouts: int = 0
    torn_bytes: int = 0

    def has(self, group_id: int, member: int) -> bool:
        """Whether a rollout is there."""
        return bool(self.members.get(group_id, 0) >> member & 1)

    def missing(self, group_id: int, group_size: int) -> list[int]:
        """Members of a group that are still to be made."""
        return [member for member in range(group_size) if not self.has(group_id, member)]

    def add(self, group_id: int, member: int) -> None:
        """Count one."""
        self.members[group_id] = self.members.get(group_id, 0) | 1 << member
        self.num_rollouts += 1


class Ledger:
    """Appends rollouts, each with one write of whole lines, so that a killed run keeps all that it finished.

    Used from one thread.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or begin it; torn lines at its end are cut off.

        Raises:
            CheckpointError: a line before the end is damaged, or a rollout is there twice.
            DataError: the file cannot be read.
            TrainingError: it cannot be written.
        """
        self.path = path
        self.done = look_through(path) if path.exists() else Done()
        with writing(path):
            self._file = path.open("ab", buffering=0)
            if self.done.torn_bytes:
                self._file.truncate(self._file.seek(0, os.SEEK_END) - self.done.torn_bytes)
            sync(path.parent)
        self._synced_at = time.monotonic()

    def add(self, lines: Sequence[dict[str, Any]]) -> None:
        """Append rollouts: all of them or, when the disk is full, none.

        Raises:
            TrainingError: the disk is full or the file cannot be written; what was there before is intact.
        """
        append_line(self._file, self.path, b"".join(map(encode, lines)))
        if time.monotonic() - self._synced_at > SYNC_SECONDS:
            with writing(self.path):
                self._sync()
        for line in lines:
            self.done.add(line["group_id"], line["member"])

    def close(self) -> None:
        """Wait until everything is on the disk."""
        with writing(self.path), self._file:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_at = time.monotonic()


def look_through(path: Path) -> Done:
    """What a file of rollouts has.

    Raises:
        CheckpointError: a line before the end is damaged, or a rollout is there twice: nobody can tell what is missing.
        DataError: the file cannot be read.
    """
    done = Done()
    damaged: int | None = None
    for line in read_lines(path):
        if line.values is None:
            damaged = damaged or line.number
            done.torn_bytes += line.end - line.start
            continue
        if damaged is not None:
            raise CheckpointError(
                f"{path}:{damaged}: this line is damaged, and whole ones follow it, so no kill of the run did it. "
                "Take the line out, and --resume makes its rollout again"
            )
        group_id, member = line.values["group_id"], line.values.get("member")
        if not isinstance(member, int):
            raise CheckpointError(f"{path}:{line.number}: no 'member': another program, or an older llmkit, wrote this")
        if done.has(group_id, member):
            raise CheckpointError(
                f"{path}:{line.number}: member {member} of group {group_id} is there for the second time; two files "
                "were put together, or two runs wrote here. Take one of the lines out"
            )
        done.add(group_id, member)
    return done
