"""What a run writes down as it goes: metrics, sampled rollouts, and the report when it ends."""

import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from llmkit.config.section import PluginSection
from llmkit.disk import write_text, writing
from llmkit.errors import LLMKitError, RunInterrupted
from llmkit.rollout.lines import describe_rollout, encode
from llmkit.runs.run_directory import RunDirectory
from llmkit.terminal import warn
from llmkit.trackers.building import NamedTracker, build_trackers
from llmkit.trackers.metrics_file import Line, read_lines, read_metrics
from llmkit.train.report.page import write_report
from llmkit.train.summary import Summary, summarize
from llmkit.types import Rollout

Split = Literal["train", "eval"]


class Journal:
    """Takes each step's metrics to `metrics.jsonl` and to every tracker.

    with Journal(directory, run.trackers, resolved.masked(), total_steps=300, resume_from=checkpoint.step) as journal:
        journal.log(step, {"loss": 0.5, "num_tokens": 4096})

    Resumed after step N, it moves later lines away, so that the series reads as if the run had never stopped, and
    `time_seconds` goes on from the last line that stayed. When the block ends, however it ends, trackers are closed
    and the report is written.
    """

    def __init__(
        self,
        directory: RunDirectory,
        trackers: Sequence[PluginSection] = (),
        resolved: Mapping[str, Any] | None = None,
        *,
        total_steps: int | None = None,
        resume_from: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            directory: of the run.
            trackers: those asked for, beside `jsonl` and `console`, which every run has.
            resolved: the whole configuration, secrets masked, for trackers that show it.
            total_steps: None when it is not known.
            resume_from: step of the checkpoint that the run goes on from; None when it starts at the beginning.
            clock: gives seconds.

        Raises:
            PluginError: a tracker is not installed or cannot start.
            TrainingError: the directory cannot be written.
        """
        self.directory = directory
        self._clock = clock
        self._seconds_before = rewind(directory, resume_from)
        self._last_step = -1 if resume_from is None else resume_from
        self._started_at = clock()
        shown = {**(resolved or {}), "max_steps": total_steps}
        self._trackers = build_trackers(trackers, directory.path, shown, resumed=resume_from is not None)

    def log(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """Write one step down: once per step, step by step upwards; 0 is what was measured before training.

        Args:
            step: from 0.
            metrics: without `step` and `time_seconds`, which are added.

        Raises:
            TrainingError: the disk is full.
        """
        assert step > self._last_step, f"step {step} was logged after step {self._last_step}"
        self._last_step = step
        seconds = self._seconds_before + self._clock() - self._started_at
        row = {"step": step, "time_seconds": round(seconds, 3), **metrics}
        for tracker in self._trackers:
            self._send(tracker, row)

    def rollouts(self, step: int, rollouts: Sequence[Rollout], split: Split = "train") -> None:
        """Write sampled rollouts to `rollouts/step-00010.jsonl`, or `rollouts/eval-00010.jsonl` for held-out prompts.

        The report shows held-out prompts over time: the completions of several files side by side.

        Raises:
            TrainingError: the disk is full.
        """
        with writing(self.directory.rollouts):
            self.directory.rollouts.mkdir(exist_ok=True)
        members: Counter[int] = Counter()
        lines: list[str] = []
        for rollout in rollouts:
            lines.append(encode(describe_rollout(rollout, members[rollout.group_id])).decode())
            members[rollout.group_id] += 1
        prefix = "step" if split == "train" else "eval"
        write_text(self.directory.rollouts / f"{prefix}-{step:05d}.jsonl", "".join(lines))

    def summary(self) -> Summary:
        """What the run has come to so far, the time before a resumption included."""
        return summarize(read_metrics(self.directory.metrics))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tracker in self._trackers:
            self._close(tracker)
        status, detail = outcome(error)
        try:
            write_report(self.directory, status, detail)
        except (LLMKitError, OSError) as failure:
            # The training is saved, and its own error, if there is one, is the one to show.
            warn(f"the report was not written: {failure}")

    def _send(self, tracker: NamedTracker, row: Mapping[str, float | int | str]) -> None:
        try:
            tracker.tracker.log(row)
        except LLMKitError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, training goes on
            if tracker.num_failures == 0:
                warn(f"tracker {tracker.name!r} failed at step {row['step']}: {error!r}. The run goes on")
            tracker.num_failures += 1

    def _close(self, tracker: NamedTracker) -> None:
        try:
            tracker.tracker.close()
        except Exception as error:  # noqa: BLE001 - one tracker's failure must not keep the others from closing
            warn(f"tracker {tracker.name!r} failed to close: {error!r}")
        if tracker.num_failures:
            warn(f"tracker {tracker.name!r} missed {tracker.num_failures} steps; metrics.jsonl has them all")


class SilentJournal:
    """Takes what a `Journal` takes, and writes nothing: for the processes of a parallel run that are not the first."""

    def log(self, step: int, metrics: Mapping[str, float | int | str]) -> None:
        """The first process has the same numbers."""

    def rollouts(self, step: int, rollouts: Sequence[Rollout], split: Split = "train") -> None:
        """The first process has the same rollouts."""

    def summary(self) -> Summary:
        """Of nothing."""
        return summarize([])


def outcome(error: BaseException | None) -> tuple[str, str]:
    """How a run ended, and in which words."""
    if error is None:
        return "finished", ""
    if isinstance(error, RunInterrupted | KeyboardInterrupt):
        return "interrupted", str(error)
    return "failed", str(error) if isinstance(error, LLMKitError) else repr(error)


def rewind(directory: RunDirectory, resume_from: int | None) -> float:
    """Make `metrics.jsonl` and `rollouts/` end at the step that the run goes on from; nothing is thrown away.

    Later lines, and damaged ones, go to `metrics.before-resume-N.jsonl`; later rollouts to `rollouts/before-resume-N/`.

    Args:
        directory: of the run.
        resume_from: the last step to keep; None keeps none.

    Returns: `time_seconds` of the last line that stayed, 0 without one.
    """
    last = -1 if resume_from is None else resume_from
    name = f"before-resume-{max(last, 0)}"
    lines = read_lines(directory.metrics)
    kept = [line for line in lines if line.metrics is not None and line.metrics["step"] <= last]
    moved = [line for line in lines if line.metrics is None or line.metrics["step"] > last]
    kept_metrics = [line.metrics for line in kept if line.metrics is not None]
    if damaged := sum(line.metrics is None for line in lines):
        warn(f"{directory.metrics}: {damaged} damaged line(s), moved to metrics.{name}.jsonl")
    if last > 0 and (not kept_metrics or kept_metrics[-1]["step"] < last):
        warn(f"{directory.metrics}: the last steps up to {last} are missing; the checkpoint is not affected")
    if moved or (kept and not kept[-1].raw.endswith(b"\n")):
        move_lines(directory, kept, moved, name)
    move_rollouts(directory.rollouts, last, name)
    return float(kept_metrics[-1].get("time_seconds") or 0.0) if kept_metrics else 0.0


def move_lines(directory: RunDirectory, kept: Sequence[Line], moved: Sequence[Line], name: str) -> None:
    """Leave `kept` in `metrics.jsonl` and add `moved` to `metrics.<name>.jsonl`, which may have lines already."""
    aside = directory.path / f"metrics.{name}.jsonl"
    # The copy comes first: a kill between the two leaves a line twice, never nowhere.
    if moved:
        with writing(aside), aside.open("ab") as file:
            file.write(b"".join(end_line(line.raw) for line in moved))
            file.flush()
            os.fsync(file.fileno())
    write_text(directory.metrics, b"".join(end_line(line.raw) for line in kept).decode("utf-8"))


def end_line(raw: bytes) -> bytes:
    """`raw` with its newline."""
    return raw if raw.endswith(b"\n") else raw + b"\n"


def move_rollouts(directory: Path, last: int, name: str) -> None:
    """Put the rollouts of steps after `last` into a directory of their own."""
    with writing(directory):
        for path in sorted(directory.glob("*-*.jsonl")):
            step = path.stem.rsplit("-", 1)[-1]
            if step.isdigit() and int(step) > last:
                (directory / name).mkdir(exist_ok=True)
                os.replace(path, directory / name / path.name)
