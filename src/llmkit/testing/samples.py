"""Small records, rows and rollouts for tests."""

from collections.abc import Mapping
from typing import Any

from llmkit.types import Message, Record, Rollout, Row, Source


def row(values: Mapping[str, Any], line: int = 1, path: str = "rows.jsonl") -> Row:
    """A raw row of a data set."""
    return Row(values, Source(path, line))


def record(question: str = "What is 3 + 4?", answer: str | None = "7", **extra: Any) -> Record:
    """A question with its reference answer."""
    return Record((Message("user", question),), Source("rows.jsonl", 1), answer=answer, extra=extra)


def rollout(completion: str, answer: str | None = "7", question: str = "What is 3 + 4?", **extra: Any) -> Rollout:
    """A finished rollout, one token per character of prompt and completion."""
    num_prompt, num_sampled = len(question), len(completion)
    return Rollout(
        token_ids=[ord(character) for character in question + completion],
        loss_mask=[0] * num_prompt + [1] * num_sampled,
        logprobs=[0.0] * num_prompt + [-0.5] * num_sampled,
        versions=[-1] * num_prompt + [0] * num_sampled,
        stop_reason="stop",
        record=record(question, answer, **extra),
        group_id=0,
        prompt=question,
        completion=completion,
    )
