"""Records to samples: what is rendered of each, which weight its characters have, and the tokens of many at once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmkit.data.chat.marked_spans import part_spans
from llmkit.data.chat.marks import Span
from llmkit.data.chat.span_weights import token_weights
from llmkit.data.chat.template_input import Chat, check_has_messages
from llmkit.data.chat.turn_spans import end_of_turn_start
from llmkit.data.codec import TextCodec
from llmkit.errors import DataError
from llmkit.types import Message, Sample, Source

TrainOn = Literal["assistant", "last_turn", "all"]


@dataclass
class Weighed:
    """A text with the loss weights of its characters.

    Attributes:
        text: to be tokenized.
        source: where it came from.
        spelled: where it spells special tokens that must stay text.
        default: weight of its characters.
        spans: characters with another weight; a later one counts where several overlap.
        before: ids that go before it, with weight `default`.
        after: ids that go after it, with weight `default`.
    """

    text: str
    source: Source
    spelled: Sequence[Span] = ()
    default: float = 0.0
    spans: list[tuple[Span, float]] = field(default_factory=list)
    before: Sequence[int] = ()
    after: Sequence[int] = ()


def weigh_chat(
    codec: TextCodec, chat: Chat, source: Source, weights: Sequence[float | None], default: float, train_end: bool
) -> Weighed:
    """A conversation as text with weights.

    Args:
        codec: renders it.
        chat: the conversation.
        source: where it came from.
        weights: loss weight of each message; None leaves `default`.
        default: weight of all other text.
        train_end: whether the tokens that end an assistant's turn have its weight, or 0.
    Raises:
        DataError: names the row: it has no messages, or the template refuses it.
    """
    check_has_messages(chat.messages, source)
    given = [default if weight is None else weight for weight in weights]
    cut = [not train_end and message.role == "assistant" for message in chat.messages]
    wanted = [weight != default or (is_cut and weight > 0) for weight, is_cut in zip(given, cut, strict=True)]
    layout = codec.lay_out(chat, wanted)
    weighed = Weighed(layout.text, source, layout.spelled, default)
    for spans, weight, is_cut in zip(layout.turns, given, cut, strict=True):
        for span in spans:
            weighed.spans.append((span, weight))
            if is_cut:
                weighed.spans.append(((end_of_turn_start(codec.template, layout, span), span[1]), 0.0))
    weighed.spans += part_spans(codec.template, chat, layout.text)
    return weighed


def weigh_text(codec: TextCodec, text: str, source: Source) -> Weighed:
    """Plain text between the tokenizer's begin- and end-of-text tokens; all of it is trained.

    Raises:
        DataError: there is no text.
    """
    if not text:
        raise DataError(f"{source}: the text is empty")
    specials = () if codec.special_tokens_in_text else codec.template.special_pattern.finditer(text)
    before, after = codec.text_ends
    return Weighed(text, source, [match.span() for match in specials], 1.0, before=before, after=after)


def as_samples(codec: TextCodec, weighed: Sequence[Weighed | DataError]) -> list[Sample | DataError]:
    """Tokens with weights, tokenized together; an error stays in its place."""
    sound = [one for one in weighed if isinstance(one, Weighed)]
    tokens = iter(codec.encode_all([one.text for one in sound], [one.spelled for one in sound]))
    results: list[Sample | DataError] = []
    for one in weighed:
        if isinstance(one, DataError):
            results.append(one)
            continue
        encoded = next(tokens)
        if isinstance(encoded, DataError):
            results.append(DataError(f"{one.source}: {encoded}"))
            continue
        weights = token_weights(encoded, one.default, one.spans)
        weights = [one.default] * len(one.before) + weights + [one.default] * len(one.after)
        results.append(first_untrained(Sample([*one.before, *encoded.token_ids, *one.after], weights, one.source)))
    return results


def check_tokens(codec: TextCodec, sample: Sample, source: Source) -> Sample:
    """Tokens that a row brings with it.

    Raises:
        DataError: there are none, as many weights are not there, or an id is not the tokenizer's.
    """
    ids, weights = sample.token_ids, sample.loss_weights
    if not ids:
        raise DataError(f"{source}: the row has no tokens")
    if len(ids) != len(weights):
        raise DataError(
            f"{source}: {len(ids)} token ids and {len(weights)} loss weights; give as many of one as of both"
        )
    wrong = next((token_id for token_id in (min(ids), max(ids)) if not 0 <= token_id < codec.num_ids), None)
    if wrong is not None:
        raise DataError(
            f"{source}: the token id {wrong} at position {ids.index(wrong)} is not of this tokenizer, which has "
            f"{codec.num_ids}; the row was made with another one. Name that with --set model.tokenizer=DIR"
        )
    return first_untrained(Sample(list(ids), list(weights), source))


def first_untrained(sample: Sample) -> Sample:
    """The sample with no loss on its first token: nothing comes before it that could predict it."""
    sample.loss_weights[:1] = [0.0]
    return sample


def message_weights(messages: Sequence[Message], train_on: TrainOn) -> list[float | None]:
    """The weight of each message: its own, else what `train_on` says; None is the weight of the text around it."""
    first = _last_turn_start(messages) if train_on == "last_turn" else 0
    by_rule = [
        1.0 if train_on != "all" and message.role == "assistant" and index >= first else None
        for index, message in enumerate(messages)
    ]
    return [rule if message.weight is None else message.weight for rule, message in zip(by_rule, messages, strict=True)]


def _last_turn_start(messages: Sequence[Message]) -> int:
    """Index after the last user message that an assistant message follows."""
    index = len(messages)
    while index and messages[index - 1].role != "assistant":
        index -= 1
    while index and messages[index - 1].role != "user":
        index -= 1
    return index
