"""The final answer in a worked solution."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from llmkit.rollout.rewards.numbers import last_number

CONTROL_TOKENS = re.compile(r"<\|[^|<>\n]*\|>|</?s>|<(?:eos|bos|pad|end_of_turn|start_of_turn)>")
HASHES = re.compile(r"####[ \t]*\n?([^\n]*?)(?=####|\n|$)")
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
PHRASE = re.compile(
    r"(?:\banswer\b(?:\s+to\s+[^\n.:]{1,80}?)?[*_\s]*(?:\bis\b|:|=)|\bfinal\s+answer\b)[*_:\s]*([^\n]*)", re.IGNORECASE
)
"""`The answer is 72`, `**Answer:** 72`, `Final answer: 72`."""

SENTENCE_END = re.compile(r"\.(?:\s|$)")


class Marked(NamedTuple):
    """A final answer that its text says is one, and where it begins."""

    position: int
    text: str


def extract_answer(text: str, strict: bool = False) -> str | None:
    """The final answer that a solution gives, as text; `parse_number` reads it.

    Final answers are marked by `#### 72`, `\\boxed{72}` or `The answer is 72`; of several, the last one counts. Without
    any, it is the last number in the text.

    Args:
        text: the solution. Control tokens such as `<|im_end|>` are not part of it.
        strict: only marked answers count.
    Returns: None when there is no answer.
    """
    text = CONTROL_TOKENS.sub(" ", text)
    marked = [*_after_hashes(text), *_in_boxes(text), *_after_phrases(text)]
    if marked:
        return max(marked).text
    return None if strict else last_number(text)


def _after_hashes(text: str) -> Iterator[Marked]:
    """What follows `####` on its line, or on the next one."""
    for match in HASHES.finditer(text):
        if match[1].strip():
            yield Marked(match.start(), _unboxed(match[1]))


def _in_boxes(text: str) -> Iterator[Marked]:
    """What `\\boxed{}` holds, nested braces included."""
    for match in BOX.finditer(text):
        content = _braced(text, match.end())
        if content is not None and content.strip():
            yield Marked(match.start(), content.strip())


def _after_phrases(text: str) -> Iterator[Marked]:
    """What follows `the answer is` in its sentence, where that has a number."""
    for match in PHRASE.finditer(text):
        answer = _unboxed(SENTENCE_END.split(match[1], maxsplit=1)[0])
        if re.search(r"\d", answer):
            yield Marked(match.start(), answer)


def _unboxed(text: str) -> str:
    """The content of the first box in the text, or the text."""
    match = BOX.search(text)
    content = _braced(text, match.end()) if match else None
    return (text if content is None else content).strip()


def _braced(text: str, start: int) -> str | None:
    """The text from `start` to the brace that closes it; None when none does."""
    depth = 1
    for match in re.finditer(r"\\.|[{}]", text[start:]):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if not depth:
            return text[start : start + match.start()]
    return None
