"""Find messages in a rendering by marks in their texts, for templates that do not tell in a simpler way."""

import re
from collections.abc import Sequence
from dataclasses import replace

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.marks import Marked, Span, unused_marks
from llmkit.data.chat.prefixes import Prefixes
from llmkit.data.chat.template_input import Chat
from llmkit.errors import DataError
from llmkit.types import Message, ToolCall

REASONING = re.compile(r"<think>\s*(?=\S)(?!</think>)|</think>\s*(?=\S)")
"""Places in a message after which a template may keep the rest and drop what came before."""


def spans_by_marks(prefixes: Prefixes, text: str, spelled: Sequence[Span], wanted: Sequence[int]) -> dict[int, Span]:
    """The spans of wanted messages by following marked texts through the template.

    Args:
        prefixes: of the conversation.
        text: its rendering.
        spelled: where contents spell special tokens in it.
        wanted: numbers of messages.
    Returns: nothing for a message that the template leaves out.
    Raises:
        DataError: with marks in them the texts render differently.
    """
    template, chat = prefixes.template, prefixes.chat
    marks = unused_marks(chat.texts(), 2 * len(chat.messages))
    begins, ends = marks[::2], marks[1::2]
    marked = _render(template, chat, marks, text)
    spans: dict[int, Span] = {}
    former_end = 0
    for index, message in enumerate(chat.messages):
        starts, stops = marked.marks[begins[index]], marked.marks[ends[index]]
        if not starts or not stops:
            continue
        if message.tool_calls:
            later = [place for mark in begins[index + 1 :] for place in marked.marks[mark]]
            limit = min(later, default=len(text))
            end = _end_after_calls(template, chat, text[:limit], stops[-1], spelled)
        else:
            end = _through_end_of_turn(template, text, stops[-1])
        if index in wanted:
            spans[index] = _after_header(prefixes, index, text, former_end, starts[0]), end
        former_end = end
    return spans


def part_spans(template: ChatTemplate, chat: Chat, text: str) -> list[tuple[Span, float]]:
    """Where the parts that have a weight of their own are rendered, and those weights.

    Raises:
        DataError: with marks in them the texts render differently.
    """
    weighted = [
        (index, place, part.weight)
        for index, message in enumerate(chat.messages)
        if not isinstance(message.content, str)
        for place, part in enumerate(message.content)
        if part.weight is not None and part.text
    ]
    if not weighted:
        return []
    marks = unused_marks(chat.texts(), 2 * len(weighted))
    contents = [[part.text for part in message.parts] for message in chat.messages]
    for (index, place, _), begin, end in zip(weighted, marks[::2], marks[1::2], strict=True):
        _mark_part(contents[index], place, begin, end)
    messages = [replace(m, content="".join(parts)) for m, parts in zip(chat.messages, contents, strict=True)]
    marked = template.render_marked(replace(chat, messages=tuple(messages)), marks)
    _check_same(chat, text, marked)
    spans = []
    for (_, _, weight), begin, end in zip(weighted, marks[::2], marks[1::2], strict=True):
        if marked.marks[begin] and marked.marks[end]:
            spans.append(((marked.marks[begin][0], marked.marks[end][-1]), weight))
    return spans


def _render(template: ChatTemplate, chat: Chat, marks: str, text: str) -> Marked:
    """The rendering with marks around what each message says."""
    for marks_empty in (True, False):
        messages = [
            _mark_message(message, begin, end, marks_empty)
            for message, begin, end in zip(chat.messages, marks[::2], marks[1::2], strict=True)
        ]
        marked = template.render_marked(replace(chat, messages=tuple(messages)), marks)
        # A template may ask whether there is content: marks in an empty one would look like it.
        if marked.text == text:
            return marked
    _check_same(chat, text, marked)
    return marked


def _check_same(chat: Chat, text: str, marked: Marked) -> None:
    if marked.text != text:
        where = f"{chat.place}: " if chat.place else ""
        raise DataError(
            f"{where}the chat template changes the content of messages, so trained tokens cannot be found; put "
            "{% generation %} and {% endgeneration %} around the assistant's text in a copy of it and name the copy "
            "with --set model.chat_template=FILE"
        )


def _mark_message(message: Message, begin: str, end: str, marks_empty: bool) -> Message:
    """Mark where the message's texts begin and end: reasoning, content and calls of tools."""
    text = message.text
    calls = tuple(ToolCall(begin + call.name + end, call.arguments, call.id) for call in message.tool_calls)
    return replace(
        message,
        content=_mark(text, begin, end) if text.strip() or marks_empty else text,
        reasoning=message.reasoning and _mark(message.reasoning, begin, end),
        tool_calls=calls,
    )


def _mark_part(contents: list[str], place: int, begin: str, end: str) -> None:
    """Mark one of the texts that make up a content; white space at the ends of the whole may be trimmed."""
    text = contents[place]
    head = "" if "".join(contents[:place]).strip() else _head(text)
    tail = "" if "".join(contents[place + 1 :]).strip() else _tail(text)
    contents[place] = head + _mark_inner(text[len(head) : len(text) - len(tail)], begin, end) + tail


def _mark(content: str, begin: str, end: str) -> str:
    """Mark where the content's text begins and ends, inside its outer white space, which templates may trim."""
    inner = content.strip()
    return _head(content) + _mark_inner(inner, begin, end) + content[len(_head(content)) + len(inner) :]


def _mark_inner(inner: str, begin: str, end: str) -> str:
    starts = {0} | {match.end() for match in REASONING.finditer(inner)}
    for position in sorted(starts, reverse=True):
        inner = inner[:position] + begin + inner[position:]
    return inner + end


def _head(text: str) -> str:
    """The white space that a text begins with."""
    return text[: len(text) - len(text.lstrip())]


def _tail(text: str) -> str:
    """The white space that a text ends with; none when it is nothing else."""
    return text[len(text.rstrip()) :] if text.strip() else ""


def _after_header(prefixes: Prefixes, index: int, text: str, former_end: int, start: int) -> int:
    """Where an assistant's turn begins after the last generation prompt before `start`; others begin at `start`."""
    if prefixes.chat.messages[index].role != "assistant":
        return start
    before, prompt = prefixes.through(index), prefixes.prompt(index)
    header = prompt[len(before) :] if before is not None and prompt is not None and prompt.startswith(before) else ""
    position = text.rfind(header, former_end, start) if header else -1
    return start if position < 0 else position + len(header)


def _through_end_of_turn(template: ChatTemplate, text: str, end: int) -> int:
    """The end of a turn, its end-of-turn token included when it follows."""
    rest = len(text) - len(text[end:].lstrip())
    if template.end_of_turn is not None and text.startswith(template.end_of_turn, rest):
        return rest + len(template.end_of_turn)
    return end


def _end_after_calls(template: ChatTemplate, chat: Chat, text: str, position: int, spelled: Sequence[Span]) -> int:
    """The end of a turn whose tool calls begin before `position` and which ends within `text`."""
    token = template.end_of_turn
    taken = {start for start, _ in spelled}
    while token is not None and (position := text.find(token, position)) >= 0:
        if position not in taken:
            return position + len(token)
        position += len(token)
    where = f"{chat.place}: " if chat.place else ""
    raise DataError(
        f"{where}the chat template does not show where the assistant's calls of tools end; put {{% generation %}} and "
        "{% endgeneration %} around the assistant's turn in a copy of it and name the copy with "
        "--set model.chat_template=FILE"
    )
