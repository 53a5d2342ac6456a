"""What a run's metrics come to: before and after, speed, and where the time went."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Metrics = Mapping[str, Any]

LABELS = {"num_tokens": "tokens", "kl": "KL", "eval_kl": "KL (held out)"}


@dataclass(frozen=True)
class Summary:
    """Figures of a whole run, resumed parts included.

    Attributes:
        num_steps: the last step.
        seconds: from the start to the last step, without the time between an interruption and its resumption.
        num_tokens: tokens that the steps worked on.
        tokens_per_second: `num_tokens` over the time that those steps took by their own count; None when not measured.
        peak_memory_bytes: the highest of any step; None when not measured.
        before: every `eval_*` metric at its first measurement; the first training figures when nothing was evaluated.
        after: the same at its last measurement.
        seconds_by_part: time by activity, most first, the unnamed rest as `everything else`; empty when not measured.
    """

    num_steps: int = 0
    seconds: float = 0.0
    num_tokens: int = 0
    tokens_per_second: float | None = None
    peak_memory_bytes: int | None = None
    before: dict[str, float] = field(default_factory=dict)
    after: dict[str, float] = field(default_factory=dict)
    seconds_by_part: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return asdict(self)


def summarize(rows: Sequence[Metrics]) -> Summary:
    """Sum up the lines of `metrics.jsonl`."""
    if not rows:
        return Summary()
    before, after = first_and_last(rows)
    seconds = max((number(row, "time_seconds") or 0.0 for row in rows), default=0.0)
    memory = [value for row in rows if (value := number(row, "peak_memory_bytes")) is not None]
    return Summary(
        num_steps=max(int(row["step"]) for row in rows),
        seconds=seconds,
        num_tokens=int(sum(number(row, "num_tokens") or 0 for row in rows)),
        tokens_per_second=mean_speed(rows),
        peak_memory_bytes=int(max(memory)) if memory else None,
        before=before,
        after=after,
        seconds_by_part=time_by_part(rows, seconds),
    )


def number(row: Metrics, name: str) -> float | None:
    """The metric if it is there and a finite number."""
    value = row.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return value
    return None


def first_and_last(rows: Sequence[Metrics]) -> tuple[dict[str, float], dict[str, float]]:
    """First and last value of every evaluation; of reward and loss in training when there was no evaluation.

    What was measured only once is in the second alone.
    """
    names = [name for name in dict.fromkeys(name for row in rows for name in row)
             if name.startswith("eval_") and not name.endswith("_seconds")]  # fmt: skip
    names = names or [name for name in ("reward_mean", "loss") if any(name in row for row in rows)][:1]
    before: dict[str, float] = {}
    after: dict[str, float] = {}
    for name in names:
        values = [value for row in rows if (value := number(row, name)) is not None]
        if len(values) > 1:
            before[name] = values[0]
        if values:
            after[name] = values[-1]
    return before, after


def mean_speed(rows: Sequence[Metrics]) -> float | None:
    """Tokens per second over all steps that measured it."""
    tokens = seconds = 0.0
    for row in rows:
        count, speed = number(row, "num_tokens"), number(row, "tokens_per_second")
        if count and speed:
            tokens += count
            seconds += count / speed
    return tokens / seconds if seconds else None


def time_by_part(rows: Sequence[Metrics], total: float) -> dict[str, float]:
    """Seconds per activity, from the metrics named `<activity>_seconds`."""
    parts: dict[str, float] = {}
    for row in rows:
        for name in row:
            if name.endswith("_seconds") and name != "time_seconds":
                part = "evaluation" if name == "eval_seconds" else name.removesuffix("_seconds").replace("_", " ")
                parts[part] = parts.get(part, 0.0) + (number(row, name) or 0.0)
    if not parts:
        return {}
    ordered = dict(sorted(parts.items(), key=lambda item: -item[1]))
    rest = total - sum(parts.values())
    return ordered | {"everything else": rest} if rest > 0 else ordered


def label(name: str) -> str:
    """A metric's name for people: `eval_reward_mean` is `held-out reward mean`."""
    if name in LABELS:
        return LABELS[name]
    words = name.replace("_", " ")
    return f"held-out {words.removeprefix('eval ')}" if name.startswith("eval_") else words
