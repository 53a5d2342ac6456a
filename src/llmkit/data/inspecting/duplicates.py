"""Equal rows, found by what is kept of each: 64 bits of its tokens, its prompt and its answer, and its place."""

from array import array
from dataclasses import dataclass, field

import numpy as np

from llmkit.types import Source

NUM_EXAMPLES = 3
"""Groups that are shown, and places of each."""


@dataclass(frozen=True)
class Repeats:
    """Groups of rows that are alike.

    Attributes:
        groups: how many groups of two rows or more.
        rows: rows in them.
        examples: places of the first rows of the first groups.
    """

    groups: int = 0
    rows: int = 0
    examples: list[list[str]] = field(default_factory=list)


class RowDigests:
    """What is remembered of every row: 36 bytes."""

    def __init__(self) -> None:
        self._tokens, self._prompts, self._answers = array("Q"), array("Q"), array("Q")
        self._paths, self._lines = array("I"), array("q")
        self._path_numbers: dict[str, int] = {}

    def add(self, tokens: int, prompt: int, answer: int, source: Source) -> None:
        """Remember a row; 0 stands for no tokens or no prompt."""
        self._tokens.append(tokens)
        self._prompts.append(prompt)
        self._answers.append(answer)
        self._paths.append(self._path_numbers.setdefault(source.path, len(self._path_numbers)))
        self._lines.append(source.line)

    def same_tokens(self) -> Repeats:
        """Rows that are trained on as the very same tokens."""
        order, starts, ends = _groups(_values(self._tokens))
        return self._repeats(order, starts, ends, ends - starts > 1)

    def same_prompt_other_answer(self) -> Repeats:
        """Rows that answer the same prompt in different ways."""
        order, starts, ends = _groups(_values(self._prompts))
        if not len(starts):
            return Repeats()
        answers = _values(self._answers)[order]
        differs = answers != np.repeat(answers[starts], ends - starts)
        return self._repeats(order, starts, ends, np.logical_or.reduceat(differs, starts))

    def _repeats(self, order: np.ndarray, starts: np.ndarray, ends: np.ndarray, wanted: np.ndarray) -> Repeats:
        """The wanted groups, by their first rows."""
        starts, ends = starts[wanted], ends[wanted]
        by_first_row = np.argsort(order[starts], kind="stable")[:NUM_EXAMPLES]
        examples = [
            [self._place(int(row)) for row in order[starts[group] : min(ends[group], starts[group] + NUM_EXAMPLES)]]
            for group in by_first_row
        ]
        return Repeats(len(starts), int((ends - starts).sum()), examples)

    def _place(self, row: int) -> str:
        path = list(self._path_numbers)[self._paths[row]]
        return str(Source(path, self._lines[row]))


def _values(digests: "array[int]") -> np.ndarray:
    return np.frombuffer(digests, dtype=np.uint64) if digests else np.zeros(0, np.uint64)


def _groups(digests: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows ordered so that equal digests lie together, and where each group begins and ends; rows with 0 are left out.

    Returns: row numbers, each group's rows in their order; starts; exclusive ends.
    """
    order = np.argsort(digests, kind="stable")
    order = order[np.searchsorted(digests[order], 1) :]
    ordered = digests[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(order) else order
    return order, starts, np.append(starts[1:], len(order)) if len(order) else order
