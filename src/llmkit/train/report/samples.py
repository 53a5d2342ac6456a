"""Sample rollouts of a run, before and after, as HTML."""

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from llmkit.formatting import format_number

Sample = dict[str, Any]
NUM_SAMPLES = 6
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def section(directory: Path) -> str:
    """The first and the last held-out rollouts side by side, or those trained on; empty when there are none."""
    files = rollout_files(directory, "eval") or rollout_files(directory, "step")
    if not files:
        return ""
    (first_step, first), (last_step, last) = files[0], files[-1]
    after = read_samples(last)
    before = read_samples(first) if first != last else []
    pairs = match(before, after)[:NUM_SAMPLES]
    if not pairs:
        return ""
    articles = "".join(article(old, new, first_step, last_step) for old, new in pairs)
    return f"<section><h2>Sample rollouts</h2>{articles}</section>"


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


def match(before: Sequence[Sample], after: Sequence[Sample]) -> list[tuple[Sample | None, Sample]]:
    """Each later sample with the earlier one of the same prompt; all alone when no prompt came twice."""
    earlier = {sample["prompt"]: sample for sample in before}
    pairs = [(earlier.get(sample["prompt"]), sample) for sample in after]
    matched = [pair for pair in pairs if pair[0] is not None]
    return matched or pairs


def article(before: Sample | None, after: Sample, first_step: int, last_step: int) -> str:
    """One prompt with its completions."""
    answer = after.get("answer")
    reference = f'<p class="muted">Reference answer: <code>{text(answer)}</code></p>' if answer is not None else ""
    sides = [completion(f"Step {first_step}", before)] if before is not None else []
    sides.append(completion(f"Step {last_step}", after))
    return (
        f'<article class="card"><pre class="prompt">{text(after["prompt"])}</pre>'
        f'<div class="grid pair">{"".join(sides)}</div>{reference}</article>'
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
        f"<pre>{text(sample['completion'])}</pre></div>"
    )


def text(value: object) -> str:
    """Text as HTML, with what HTML cannot hold replaced."""
    return escape(UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", str(value).strip()))
