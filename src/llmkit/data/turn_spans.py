"""Where each message's own text begins and ends in a rendered conversation.

An assistant's span is what a model has to write after the generation prompt: from there through the end-of-turn token,
without the line break that a template puts after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from llmkit.data.chat_template import ChatTemplate, Span, unused_marks
from llmkit.errors import DataError
from llmkit.types import Message, Source

REASONING = re.compile(r"<think>\s*(?=\S)(?!</think>)|.*?</think>\s*(?=\S)", re.DOTALL)
"""Places in a message after which a template may keep the rest and drop what came before."""


@dataclass(frozen=True)
class Layout:
    """A rendered conversation.

    Attributes:
        text: the rendering.
        spelled: where contents spell special tokens in it.
        turns: for each message its spans in `text`; none for a message that was not asked for or is not rendered.
    """

    text: str
    spelled: list[Span]
    turns: list[list[Span]]


def lay_out(template: ChatTemplate, messages: Sequence[Message], wanted: Sequence[bool], place: Source) -> Layout:
    """Render a conversation and find the messages that are wanted.

    Args:
        template: the chat template; its own `{% generation %}` markers, where it has them, tell the assistant's spans.
        messages: the conversation.
        wanted: which messages' spans to find.
        place: where the conversation came from, for errors.
    Raises:
        DataError: the template refuses the conversation, or changes contents so that they cannot be found again.
    """
    if template.has_generation_markers:
        text, generations = template.render_generations(messages, place)
    else:
        text, generations = template.render(messages, place=place), None
    spelled = template.spelled_specials(messages, text, place=place)
    turns: list[list[Span]] = [[] for _ in messages]
    followed: list[int] = []
    for index in (index for index, is_wanted in enumerate(wanted) if is_wanted):
        span = None
        if messages[index].role == "assistant" and generations is None:
            span = _span_by_prefix(template, messages, index, text, spelled)
        if span is None:
            followed.append(index)
        else:
            turns[index] = [span]
    if generations is not None:
        followed = _take_generations(messages, followed, generations, turns)
    if followed:
        _take_marked(followed, spans_by_marks(template, messages, text, place), generations, messages, turns)
    return Layout(text, spelled, turns)


def _take_generations(
    messages: Sequence[Message], wanted: Sequence[int], generations: Sequence[Span], turns: list[list[Span]]
) -> list[int]:
    """Give each assistant message its marked span; return the messages for which that does not tell."""
    assistants = [index for index, message in enumerate(messages) if message.role == "assistant"]
    if len(assistants) != len(generations):
        return list(wanted)
    span_of = dict(zip(assistants, generations, strict=True))
    for index in wanted:
        if index in span_of:
            turns[index] = [span_of[index]]
    return [index for index in wanted if index not in span_of]


def _take_marked(
    wanted: Sequence[int],
    spans: Sequence[Span | None],
    generations: Sequence[Span] | None,
    messages: Sequence[Message],
    turns: list[list[Span]],
) -> None:
    """Give messages the spans found by marks; of an assistant's, what the template's own markers enclose."""
    for index in wanted:
        span = spans[index]
        if span is None:
            continue
        if generations is not None and messages[index].role == "assistant":
            turns[index] = [marked for marked in generations if marked[0] < span[1] and span[0] < marked[1]]
        else:
            turns[index] = [span]


def _span_by_prefix(
    template: ChatTemplate, messages: Sequence[Message], index: int, text: str, spelled: Sequence[Span]
) -> Span | None:
    """The assistant's span by rendering what comes before it; None when that is not how the whole text begins."""
    try:
        prompt = template.render(messages[:index], generation_prompt=True)
        through = text if index + 1 == len(messages) else template.render(messages[: index + 1])
    except DataError:
        return None
    if not text.startswith(prompt) or not text.startswith(through) or len(through) <= len(prompt):
        return None
    start, end = len(prompt), len(through)
    floor = max((stop for _, stop in spelled if start < stop <= end), default=start)
    return start, floor + _length_to_end_of_turn(template, text[floor:end])


def _length_to_end_of_turn(template: ChatTemplate, turn: str) -> int:
    """Length of a turn through the first of the special tokens that end it; without any, through its last word."""
    end = len(turn.rstrip())
    first = None
    while match := _special_before(template, turn, end):
        first = match
        end = len(turn[: match[0]].rstrip())
    return first[1] if first else len(turn.rstrip())


def _special_before(template: ChatTemplate, turn: str, end: int) -> Span | None:
    """The special token that ends exactly at `end`."""
    token = max(
        (token for token in template.special_tokens if token and turn.endswith(token, 0, end)), key=len, default=None
    )
    return None if token is None else (end - len(token), end)


def spans_by_marks(template: ChatTemplate, messages: Sequence[Message], text: str, place: Source) -> list[Span | None]:
    """Every message's span by following marked contents through the template; None where the template leaves it out.

    Raises:
        DataError: with marks in them the contents render differently.
    """
    marks = unused_marks(messages, 2 * len(messages))
    begins, ends = marks[::2], marks[1::2]
    contents = [_mark(m.text, begin, end) for m, begin, end in zip(messages, begins, ends, strict=True)]
    marked = template.render_marked(messages, contents, marks, place=place)
    if marked.text != text:
        raise DataError(
            f"{place}: the chat template changes the content of messages, so trained tokens cannot be found; put "
            "{% generation %} and {% endgeneration %} around the assistant's text in a copy of it and name the copy "
            "with --set model.chat_template=FILE"
        )
    spans: list[Span | None] = []
    former_end = 0
    for index in range(len(messages)):
        starts, stops = marked.marks[begins[index]], marked.marks[ends[index]]
        if not starts or not stops:
            spans.append(None)
            continue
        start = _after_header(template, messages, index, text, former_end, starts[0])
        former_end = _through_end_of_turn(template, text, stops[-1])
        spans.append((start, former_end))
    return spans


def _mark(content: str, begin: str, end: str) -> str:
    """Mark where the content's text begins and ends, inside its outer white space, which templates may trim."""
    inner = content.strip()
    leading = len(content) - len(content.lstrip())
    starts = {0} | {match.end() for match in REASONING.finditer(inner)}
    for position in sorted(starts, reverse=True):
        inner = inner[:position] + begin + inner[position:]
    return content[:leading] + inner + end + content[leading + len(content.strip()) :]


def _after_header(
    template: ChatTemplate, messages: Sequence[Message], index: int, text: str, former_end: int, start: int
) -> int:
    """Where an assistant's turn begins after the last generation prompt before `start`; others begin at `start`."""
    if messages[index].role != "assistant":
        return start
    try:
        before = template.render(messages[:index])
        prompt = template.render(messages[:index], generation_prompt=True)
    except DataError:
        return start
    header = prompt[len(before) :] if prompt.startswith(before) else ""
    position = text.rfind(header, former_end, start) if header else -1
    return start if position < 0 else position + len(header)


def _through_end_of_turn(template: ChatTemplate, text: str, end: int) -> int:
    """The end of a turn, its end-of-turn token included when it follows."""
    rest = len(text) - len(text[end:].lstrip())
    if template.end_of_turn is not None and text.startswith(template.end_of_turn, rest):
        return rest + len(template.end_of_turn)
    return end
