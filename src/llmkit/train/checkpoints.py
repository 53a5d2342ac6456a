"""Checkpoints on disk: whole or not there.

    checkpoints/step-100/
        config.json, model.safetensors, ...     Hugging Face layout, for transformers and peft
        trainer/                                optimizer, random state, data position
        llmkit.json                             manifest: step, configuration, versions, size and SHA-256 of every file

A checkpoint is written under a temporary name, brought to the disk and renamed, so `step-N` is there as a whole or not
at all. What it holds is checked against the manifest before it is used.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from llmkit.disk import free_bytes, is_disk_full, sync, write_failure, writing
from llmkit.errors import CheckpointError
from llmkit.train.console import warn
from llmkit.train.environment import package_versions

MANIFEST = "llmkit.json"
FORMAT = 1
STEP = re.compile(r"step-(\d+)")
PARTIAL = ".partial"


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are as they were written.

    Attributes:
        path: its directory, in Hugging Face layout.
        step: the last step that it holds.
        config_hash: of the settings that the result depends on.
        config: the resolved configuration that it was trained with, secrets masked.
        versions: of Python and the packages that wrote it.
    """

    path: Path
    step: int
    config_hash: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)

    @property
    def trainer(self) -> Path:
        """Where the state beside the weights is."""
        return self.path / "trainer"


class CheckpointStore:
    """The checkpoints of one run."""

    def __init__(
        self, path: Path, *, keep_last: int = 2, config_hash: str = "", config: Mapping[str, Any] | None = None
    ) -> None:
        """
        Args:
            path: the directory of checkpoints; made when the first one is saved.
            keep_last: how many to keep; older ones go once a newer one is safe.
            config_hash: recorded with each checkpoint.
            config: recorded with each checkpoint; secrets masked.
        """
        assert keep_last >= 1, "a store that keeps nothing could not save"
        self.path = path
        self._keep_last = keep_last
        self._config_hash = config_hash
        self._config = dict(config or {})

    def save(self, step: int, write: Callable[[Path], None]) -> Checkpoint:
        """Save `step`, then drop checkpoints beyond `keep_last`. A step that is already there whole is left as it is.

        Args:
            step: the last step that went into the state.
            write: fills the directory that it is given.

        Raises:
            TrainingError: the disk is full or cannot be written; former checkpoints are intact.
        """
        final = self.path / f"step-{step}"
        if final.exists() and find_fault(final) is None:
            return self.load(step)
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._remove_partials()
            partial = self.path / f"{final.name}{PARTIAL}"
            with self._discard_on_failure(partial, final):
                partial.mkdir()
                write(partial)
                self._write_manifest(partial, step)
                for path in [*partial.rglob("*"), partial]:
                    sync(path)
            shutil.rmtree(final, ignore_errors=True)  # there only if damaged
            partial.rename(final)
            sync(self.path)
            self._prune(step)
        return self.load(step, check=False)

    def steps(self) -> list[int]:
        """Steps that have a directory, good or damaged, in order."""
        if not self.path.is_dir():
            return []
        return sorted(int(found[1]) for entry in self.path.iterdir() if (found := STEP.fullmatch(entry.name)))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, with a warning for every newer one that is not; None without one."""
        for partial in self._partials():
            warn(f"{partial}: was being written when the run ended; not used")
        for step in reversed(self.steps()):
            path = self.path / f"step-{step}"
            fault = find_fault(path)
            if fault is None:
                return self.load(step, check=False)
            warn(f"{path}: {fault}; not used")
        return None

    def load(self, step: int, *, check: bool = True) -> Checkpoint:
        """The checkpoint of `step`.

        Args:
            step: which one.
            check: compare every file with the manifest; False only for one that was just checked or written.

        Raises:
            CheckpointError: there is none, or it is damaged; names the fault.
        """
        path = self.path / f"step-{step}"
        if check and (fault := find_fault(path)) is not None:
            there = ", ".join(f"step-{other}" for other in self.steps() if other != step) or "none"
            raise CheckpointError(f"{path}: {fault}; other checkpoints there: {there}")
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        return Checkpoint(path, step, manifest["config_hash"], manifest["config"], manifest["versions"])

    def _partials(self) -> list[Path]:
        return sorted(self.path.glob(f"step-*{PARTIAL}")) if self.path.is_dir() else []

    def _remove_partials(self) -> None:
        for partial in self._partials():
            shutil.rmtree(partial)

    @contextlib.contextmanager
    def _discard_on_failure(self, partial: Path, final: Path) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            # Libraries word a full disk in many ways; the free space, looked at before it is given back, tells as well.
            full = is_disk_full(error) or free_bytes(self.path) < 1_000_000
            shutil.rmtree(partial, ignore_errors=True)
            if full and isinstance(error, Exception):
                raise write_failure(final, error) from error
            raise

    def _write_manifest(self, path: Path, step: int) -> None:
        files = {name: {"bytes": (path / name).stat().st_size, "sha256": checksum(path / name)}
                 for name in sorted(list_files(path))}  # fmt: skip
        manifest = {
            "format": FORMAT,
            "step": step,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "config_hash": self._config_hash,
            "config": self._config,
            "versions": package_versions(),
            "files": files,
        }
        (path / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def _prune(self, newest: int) -> None:
        former = [step for step in self.steps() if step <= newest]
        for step in former[: -self._keep_last]:
            # Renamed first: a kill in between must not leave a damaged `step-N` behind.
            doomed = (self.path / f"step-{step}").rename(self.path / f"step-{step}{PARTIAL}")
            shutil.rmtree(doomed)


def find_fault(path: Path) -> str | None:
    """What is wrong with the checkpoint in `path`, in words; None when every file is as it was written."""
    if not path.is_dir():
        return "no such checkpoint"
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in manifest["files"].items()}
        written_by, step = manifest["format"], manifest["step"]
        assert {"config_hash", "config", "versions"} <= manifest.keys()
    except FileNotFoundError:
        return f"has no {MANIFEST}, so it was not written to its end"
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        return f"its {MANIFEST} cannot be read"
    if written_by != FORMAT:
        return f"has format {written_by!r}, and this version of llmkit reads format {FORMAT}"
    if path.name != f"step-{step}":
        return f"its {MANIFEST} is that of step {step}"
    for name, (num_bytes, sha256) in files.items():
        if (fault := find_file_fault(path / name, num_bytes, sha256)) is not None:
            return f"{name} {fault}"
    return None


def find_file_fault(path: Path, num_bytes: int, sha256: str) -> str | None:
    """How a file differs from what the manifest says."""
    try:
        size = path.stat().st_size
        if size != num_bytes:
            return f"has {size} bytes and was written with {num_bytes}"
        return None if checksum(path) == sha256 else "is not what was written: its checksum differs"
    except FileNotFoundError:
        return "is missing"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def list_files(path: Path) -> Iterator[str]:
    """Names of all files below `path`, relative to it."""
    for entry in path.rglob("*"):
        if entry.is_file():
            yield entry.relative_to(path).as_posix()


def checksum(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
