"""Where each message's own text begins and ends in a rendered conversation.

An assistant's span is what a model has to write after the generation prompt: from there through the end-of-turn token,
reasoning and tool calls included, without the line break that a template puts after it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llmkit.data.chat.chat_template import ChatTemplate
from llmkit.data.chat.marked_spans import spans_by_marks
from llmkit.data.chat.marks import Span
from llmkit.data.chat.prefixes import Prefixes
from llmkit.data.chat.spelled import spelled_specials
from llmkit.data.chat.template_input import Chat


@dataclass(frozen=True)
class Layout:
    """A rendered conversation.

    Attributes:
        text: the rendering.
        spelled: where contents spell special tokens in it; those stay text.
        turns: for each message its spans in `text`; none for a message that was not asked for or is not rendered.
    """

    text: str
    spelled: list[Span]
    turns: list[list[Span]]


def lay_out(
    template: ChatTemplate, chat: Chat, wanted: Sequence[bool], *, special_tokens_in_text: bool = False
) -> Layout:
    """Render a conversation and find the messages that are wanted.

    Args:
        template: the chat template; its own `{% generation %}` markers, where it has them, tell the assistant's spans.
        chat: the conversation.
        wanted: which messages' spans to find.
        special_tokens_in_text: special tokens that contents spell are not text.
    Raises:
        DataError: the template refuses the conversation, or changes contents so that they cannot be found again.
    """
    text, generations = template.render_generations(chat)
    spelled = [] if special_tokens_in_text else spelled_specials(template, chat, text)
    prefixes = Prefixes(template, chat)
    turns: list[list[Span]] = [[] for _ in chat.messages]
    followed: list[int] = []
    for index in (index for index, is_wanted in enumerate(wanted) if is_wanted):
        span = None
        if chat.messages[index].role == "assistant" and generations is None:
            span = _span_by_prefix(prefixes, index, text, spelled)
        if span is None:
            followed.append(index)
        else:
            turns[index] = [span]
    if generations is not None:
        followed = _take_generations(chat, followed, generations, turns)
    if followed:
        _take_marked(spans_by_marks(prefixes, text, spelled, followed), generations, chat, turns)
    return Layout(text, spelled, turns)


def end_of_turn_start(template: ChatTemplate, layout: Layout, span: Span) -> int:
    """Where the tokens that end an assistant's turn begin; the end of the span when there are none."""
    floor = _floor(layout.spelled, span)
    first = _first_of_last_specials(template, layout.text[floor : span[1]])
    return span[1] if first is None else floor + first[0]


def _take_generations(
    chat: Chat, wanted: Sequence[int], generations: Sequence[Span], turns: list[list[Span]]
) -> list[int]:
    """Give each assistant message its marked span; return the messages for which that does not tell."""
    assistants = [index for index, message in enumerate(chat.messages) if message.role == "assistant"]
    if len(assistants) != len(generations):
        return list(wanted)
    span_of = dict(zip(assistants, generations, strict=True))
    for index in wanted:
        if index in span_of:
            turns[index] = [span_of[index]]
    return [index for index in wanted if index not in span_of]


def _take_marked(
    spans: Mapping[int, Span], generations: Sequence[Span] | None, chat: Chat, turns: list[list[Span]]
) -> None:
    """Give messages the spans found by marks; of an assistant's, what the template's own markers enclose."""
    for index, span in spans.items():
        if generations is not None and chat.messages[index].role == "assistant":
            turns[index] = [marked for marked in generations if marked[0] < span[1] and span[0] < marked[1]]
        else:
            turns[index] = [span]


def _span_by_prefix(prefixes: Prefixes, index: int, text: str, spelled: Sequence[Span]) -> Span | None:
    """The assistant's span by rendering what comes before it; None when that is not how the whole text begins."""
    prompt = prefixes.prompt(index)
    if prompt is None or not text.startswith(prompt):
        return None
    through = text if index + 1 == len(prefixes.chat.messages) else prefixes.through(index + 1)
    if through is None or not text.startswith(through) or len(through) <= len(prompt):
        return None
    start, end = len(prompt), len(through)
    floor = _floor(spelled, (start, end))
    first = _first_of_last_specials(prefixes.template, text[floor:end])
    return start, floor + (first[1] if first else len(text[floor:end].rstrip()))


def _floor(spelled: Sequence[Span], span: Span) -> int:
    """Where the template's own end of a turn can begin: after the last special token that the content spells."""
    start, end = span
    return max((stop for _, stop in spelled if start < stop <= end), default=start)


def _first_of_last_specials(template: ChatTemplate, turn: str) -> Span | None:
    """The first of the special tokens at the end of a turn, which nothing but white space parts; None without any."""
    end = len(turn.rstrip())
    first = None
    while match := _special_before(template, turn, end):
        first = match
        end = len(turn[: match[0]].rstrip())
    return first


def _special_before(template: ChatTemplate, turn: str, end: int) -> Span | None:
    """The special token that ends exactly at `end`."""
    token = max(
        (token for token in template.special_tokens if token and turn.endswith(token, 0, end)), key=len, default=None
    )
    return None if token is None else (end - len(token), end)
