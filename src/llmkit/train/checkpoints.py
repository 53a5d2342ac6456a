"""Checkpoints on disk: whole or not there.

    checkpoints/step-100/
        config.json, model.safetensors, ...     Hugging Face layout, for transformers and peft
        trainer/                                optimizer, random state, data position
        llmkit.json                             manifest: step, configuration, versions, size and SHA-256 of every file
    checkpoints/best                            names the best one, `step-100`, when the run keeps it

A checkpoint is written under a temporary name, brought to the disk and renamed, so `step-N` is there as a whole or not
at all. What it holds is checked against the manifest before it is used.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llmkit.disk import free_bytes, is_disk_full, no_space, sync, write_text, writing
from llmkit.errors import CheckpointError, LLMKitError
from llmkit.terminal import warn
from llmkit.train.manifest import find_fault, read_manifest, write_manifest

STEP = re.compile(r"step-(\d+)")
PARTIAL = ".partial"
BEST = "best"


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
        """Save `step`, then drop all but the best checkpoint and the last `keep_last`.

        A step that is already there whole is left as it is.

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
            partial = self.partial(step)
            with self._discard_on_failure(partial, final):
                partial.mkdir()
                write(partial)
                write_manifest(partial, step, self._config_hash, self._config)
                for path in [*partial.rglob("*"), partial]:
                    sync(path)
            shutil.rmtree(final, ignore_errors=True)  # there only if damaged
            partial.rename(final)
            sync(self.path)
            self._prune(step)
        return self.load(step, check=False)

    def partial(self, step: int) -> Path:
        """Where the checkpoint of `step` is while it is written."""
        return self.path / f"step-{step}{PARTIAL}"

    @property
    def best(self) -> int | None:
        """The step that the file `best` names; None when there is none, or its checkpoint is gone."""
        try:
            found = STEP.fullmatch((self.path / BEST).read_text(encoding="utf-8").strip())
        except (OSError, UnicodeDecodeError):
            return None
        return int(found[1]) if found and int(found[1]) in self.steps() else None

    def mark_best(self, step: int) -> None:
        """Keep `step` whatever comes, in place of the one kept so far.

        Raises:
            TrainingError: the disk is full.
        """
        if step in self.steps():
            write_text(self.path / BEST, f"step-{step}\n")
            self._prune(self.steps()[-1])
        else:
            warn(f"{self.path}: the best checkpoint, step-{step}, is gone; the next better one takes its place")
            (self.path / BEST).unlink(missing_ok=True)

    def steps(self) -> list[int]:
        """Steps that have a directory, good or damaged, in order."""
        if not self.path.is_dir():
            return []
        return sorted(int(found[1]) for entry in self.path.iterdir() if (found := STEP.fullmatch(entry.name)))

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, with a warning for every newer one that is not; None without one."""
        for partial in self._partials():
            warn(f"{partial}: was not finished when the run ended; not used")
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
        manifest = read_manifest(path)
        return Checkpoint(path, step, manifest.config_hash, manifest.config, manifest.versions)

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
            if full and isinstance(error, Exception) and not isinstance(error, LLMKitError):
                raise no_space(final) from error
            raise

    def _prune(self, newest: int) -> None:
        former = [step for step in self.steps() if step <= newest]
        best = self.best
        for step in (step for step in former[: -self._keep_last] if step != best):
            # Renamed first: a kill in between must not leave a damaged `step-N` behind.
            doomed = (self.path / f"step-{step}").rename(self.path / f"step-{step}{PARTIAL}")
            shutil.rmtree(doomed)
