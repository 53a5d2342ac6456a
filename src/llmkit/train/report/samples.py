"""Sample rollouts of a run over time, side by side, as HTML."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmkit.formatting import format_number
from llmkit.html import text

Sample = dict[str, Any]
Row = list[tuple[int, Sample]]
"""A prompt's rollouts with the steps after which they were sampled."""
NUM_SAMPLES = 6
NUM_COLUMNS = 5


def section(directory: Path) -> str:
    """Held-out rollouts at several steps side by side, or those trained on; empty when there are none."""
    files = rollout_files(directory, "eval") or rollout_files(directory, "step")
    chosen = [(step, read_samples(path)) for step, path in spread(files, NUM_COLUMNS)]
    rows = over_time(chosen)[:NUM_SAMPLES]
    if not rows:
        return ""
    articles = "".join(article(row) for row in rows)
    return f"<section><h2>Sample rollouts</h2>{articles}</section>"


def spread(files: Sequence[tuple[int, Path]], most: int) -> list[tuple[int, Path]]:
    """At most `most` files, evenly chosen, the first and the last among them."""
    if len(files) <= most:
        return list(files)
    return [files[round(place * (len(files) - 1) / (most - 1))] for place in range(most)]


def rollout_files(directory: Path, prefix: str) -> list[tuple[int, Path]]:
    """Step and path of the files of one kind, by step."""
    found = [(path.stem.removeprefix(f"{prefix}-"), path) for path in directory.glob(f"{prefix}-*.jsonl")]
    return sorted((int(step), path) for step, path in found if step.isdigit())


def read_samples(path: Path) -> list[Sample]:
    """One rollout per prompt of a file; lines that are no rollout are passed over."""
    samples: dict[Any, Sample] = {}
    for line in path.read_bytes().split(b"\n"):
        try:
            sample = json.loads(line)
        except ValueError:
            continue
        if isinstance(sample, dict) and {"prompt", "completion"} <= sample.keys():
            samples.setdefault(sample.get("group_id", len(samples)), sample)
    return list(samples.values())


def over_time(files: Sequence[tuple[int, Sequence[Sample]]]) -> list[Row]:
    """What each prompt of the last file was answered at every step that has it; prompts that came once are left out,
    unless none came twice."""
    if not files:
        return []
    by_prompt = [(step, {sample["prompt"]: sample for sample in samples}) for step, samples in files]
    rows = [
        [(step, samples[prompt]) for step, samples in by_prompt if prompt in samples]
        for prompt in (sample["prompt"] for sample in files[-1][1])
    ]
    return [row for row in rows if len(row) > 1] or rows


def article(row: Row) -> str:
    """One prompt with its completions, a column for each step."""
    _, last = row[-1]
    answer = last.get("answer")
    reference = f'<p class="muted">Reference answer: <code>{text(answer)}</code></p>' if answer is not None else ""
    columns = "".join(completion(f"Step {step}", sample) for step, sample in row)
    return (
        f'<article class="card"><pre class="prompt">{text(last["prompt"].strip())}</pre>'
        f'<div class="grid over-time" tabindex="0">{columns}</div>{reference}</article>'
    )


def completion(heading: str, sample: Sample) -> str:
    """A completion with its reward."""
    reward = sample.get("reward")
    badge = ""
    if isinstance(reward, (int, float)):
        kind = "right" if reward > 0 else "wrong"
        badge = f'<span class="badge {kind}">reward {format_number(reward)}</span>'
    if sample.get("stop_reason") == "length":
        badge = f'<span class="muted">cut at the limit</span> {badge}'
    return (
        f'<div class="sample"><div class="top"><b>{heading}</b><span>{badge}</span></div>'
        f"<pre>{text(sample['completion'].strip())}</pre></div>"
    )
