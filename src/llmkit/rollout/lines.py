"""A rollout as one line of JSON: what `llmkit rollout` and training with rewards write down, and what reads it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from llmkit.data.formatters.conversation import write_messages
from llmkit.data.turns import prompt_messages
from llmkit.errors import DataError
from llmkit.types import Rollout

NEEDED = frozenset({"group_id", "prompt", "completion", "reward"})
"""What makes a line a rollout's."""
SIGNIFICANT_DIGITS = 7
"""Of a log-probability: as many as float32 has."""


@dataclass(frozen=True, slots=True)
class Making:
    """How a rollout came about.

    Attributes:
        seed: what it was drawn with, 64 bits.
        generation_seconds: from its first prompt to its last token, waiting for its turn included.
        scoring_seconds: that the rewards took.
        has_logprobs: off where nobody asked for log-probabilities, so that there are none.
    """

    seed: int
    generation_seconds: float
    scoring_seconds: float
    has_logprobs: bool = True


def describe_rollout(rollout: Rollout, member: int, making: Making | None = None) -> dict[str, Any]:
    """One line of a rollouts file.

    Args:
        member: its number within its group, from 0.
        making: None where it is not known one by one, as in training.
    """
    start = next((place for place, mask in enumerate(rollout.loss_mask) if mask), len(rollout.token_ids))
    versions = rollout.versions[start:]
    has_logprobs = making is None or making.has_logprobs
    drawn = [version for version in versions if version >= 0]
    line: dict[str, Any] = {
        "group_id": rollout.group_id,
        "member": member,
        "source": str(rollout.record.source),
        "reward": rollout.reward,
        "rewards": rollout.rewards,
        "reward_error": rollout.reward_error,
        "stop_reason": rollout.stop_reason,
        "prompt": rollout.prompt,
        "completion": rollout.completion,
        "answer": rollout.record.answer,
        "prompt_length": start,
        "completion_length": rollout.completion_length,
        "version_min": min(drawn, default=None),
        "version_max": max(drawn, default=None),
    }
    if making is not None:
        line |= {
            "generation_seconds": round(making.generation_seconds, 4),
            "scoring_seconds": round(making.scoring_seconds, 4),
            "seed": str(making.seed),
        }
    return line | {
        "messages": write_messages(prompt_messages(rollout.record)),
        "tools": rollout.record.tools,
        "prompt_ids": rollout.token_ids[:start],
        "completion_ids": rollout.token_ids[start:],
        "loss_mask": rollout.loss_mask[start:],
        "logprobs": [_rounded(logprob) for logprob in rollout.logprobs[start:]] if has_logprobs else None,
        "versions": versions,
    }


def encode(line: Mapping[str, Any]) -> bytes:
    """A line with its newline."""
    return json.dumps(line, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


class Line(NamedTuple):
    """A line of a file: its number from 1, where it begins and ends, in bytes, and what it says; None when damaged."""

    number: int
    start: int
    end: int
    values: dict[str, Any] | None


def read_lines(path: Path) -> Iterator[Line]:
    """Every line of a rollouts file; a last one that was cut short is damaged.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            start = 0
            for number, raw in enumerate(file, start=1):
                end = start + len(raw)
                if raw.strip():
                    yield Line(number, start, end, decode(raw))
                start = end
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def decode(raw: bytes) -> dict[str, Any] | None:
    """What a line says; None when it was cut short, or is no rollout."""
    if not raw.endswith(b"\n"):
        return None
    try:
        values = json.loads(raw)
    except ValueError:
        return None
    return values if isinstance(values, dict) and values.keys() >= NEEDED else None


def read_line(path: Path, line: tuple[int, int]) -> dict[str, Any]:
    """The line between two places of a file, which was whole when the file was looked through."""
    with path.open("rb") as file:
        file.seek(line[0])
        return json.loads(file.read(line[1] - line[0]))


def rollout_files(paths: Iterable[Path]) -> list[Path]:
    """The files of rollouts that paths stand for: files as they are, and those of run directories.

    Raises:
        DataError: a path is neither.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_file():
            found.append(path)
            continue
        own = [path / "rollouts.jsonl"] if (path / "rollouts.jsonl").is_file() else []
        files = own or sorted((path / "rollouts").glob("step-*.jsonl")) or sorted(path.glob("step-*.jsonl"))
        if not files:
            what = "has no rollouts.jsonl and no rollouts/" if path.is_dir() else "does not exist"
            raise DataError(f"{path}: {what}; name a file of rollouts, or the directory of a run that made some")
        found += files
    return found


def _rounded(logprob: float) -> float | None:
    """JSON has no infinity: a token that could not be drawn has none."""
    return float(f"{logprob:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(logprob) else None
