"""`metrics.jsonl`: written a whole line at a time, read with faults told apart from lines."""

import contextlib
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from llmkit.disk import writing


class MetricsFile:
    """Appends one line per step, at once in the file, so that a killed run keeps every step it logged.

    JSON has no NaN and no infinity: such a number is written as null.
    """

    def __init__(self, path: Path) -> None:
        """Open `path` for appending.

        Raises:
            TrainingError: it cannot be opened.
        """
        self.path = path
        with writing(path):
            self._file = path.open("ab", buffering=0)

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Append one line.

        Raises:
            TrainingError: the disk is full or the file cannot be written; the lines before this one are intact.
        """
        append_line(self._file, self.path, encode_line(metrics))

    def close(self) -> None:
        """Wait until everything is on the disk."""
        with writing(self.path), self._file:
            os.fsync(self._file.fileno())


class Line(NamedTuple):
    """A line of the file: its bytes, newline included if there is one, and what it says; None when it is damaged."""

    raw: bytes
    metrics: dict[str, Any] | None


def encode_line(metrics: Mapping[str, Any]) -> bytes:
    """One line of valid JSON."""
    plain = {name: None if isinstance(value, float) and not math.isfinite(value) else value
             for name, value in metrics.items()}  # fmt: skip
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def append_line(file: Any, path: Path, content: bytes) -> None:
    """Add whole lines to the end of an unbuffered file: all of `content` or, when the disk is full, nothing.

    Raises:
        TrainingError: the disk is full or the file cannot be written; the lines before are intact.
    """
    with writing(path):
        start = file.seek(0, os.SEEK_END)
        rest = memoryview(content)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):  # the first error is the one to show
                file.truncate(start)
            raise


def read_lines(path: Path) -> list[Line]:
    """Every line of the file in order; empty when there is no file.

    Raises:
        TrainingError: the file cannot be read.
    """
    if not path.exists():
        return []
    with writing(path):
        content = path.read_bytes()
    return [Line(raw, decode_line(raw)) for raw in content.splitlines(keepends=True) if raw.strip()]


def decode_line(raw: bytes) -> dict[str, Any] | None:
    """What a line says, or None when it was cut short or is not one of ours."""
    try:
        metrics = json.loads(raw)
    except ValueError:
        return None
    if isinstance(metrics, dict) and isinstance(metrics.get("step"), int):
        return metrics
    return None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The steps in the file, damaged lines left out."""
    return [line.metrics for line in read_lines(path) if line.metrics is not None]
