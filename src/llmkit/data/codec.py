"""Records to tokens with loss weights, and tokens back to text."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Literal

from transformers import PreTrainedTokenizerBase

from llmkit.data.chat_template import ChatTemplate
from llmkit.data.counts import RowCounts
from llmkit.data.encoding import TextEncoder
from llmkit.data.turn_spans import lay_out
from llmkit.errors import DataError, ModelError
from llmkit.types import Message, PreferencePair, Record, Sample, Source

TrainOn = Literal["assistant", "last_turn", "all"]
Overlength = Literal["error", "drop", "truncate_right", "truncate_left", "split"]
REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextCodec:
    """A tokenizer and its chat template.

    A conversation is rendered as a whole and tokenized at once, so the ids are those of `apply_chat_template`. A token
    carries the greatest weight among the characters that it covers: one that straddles the boundary between prompt and
    answer is trained. Text of a message that spells a special token becomes ordinary tokens.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None) -> None:
        """Take the tokenizer, and a Jinja template in place of its own.

        Raises:
            ModelError: it has no chat template, the template is not Jinja, or the tokenizer is not a fast one.
        """
        self._tokenizer = tokenizer
        self._encoder = TextEncoder(tokenizer)
        self.template = ChatTemplate(tokenizer, chat_template)

    def prompt_ids(self, messages: Sequence[Message], source: Source | None = None) -> list[int]:
        """Ids of the conversation and of what makes the model answer.

        Args:
            messages: the conversation so far; see `prompt_messages` for a record that ends with its answer.
            source: where it came from, for the error.
        Raises:
            DataError: the template refuses the conversation.
        """
        return self._ids(messages, source, generation_prompt=True)

    def conversation_ids(self, messages: Sequence[Message], source: Source | None = None) -> list[int]:
        """Ids of the conversation alone; `sample` gives the same ones with their weights.

        Raises:
            DataError: the template refuses the conversation.
        """
        return self._ids(messages, source, generation_prompt=False)

    def sample(
        self,
        record: Record,
        train_on: TrainOn = "assistant",
        max_length: int | None = None,
        overlength: Overlength = "error",
        counts: RowCounts | None = None,
    ) -> Sample | None:
        """The record as tokens with loss weights.

        Args:
            record: a conversation.
            train_on: `assistant` every assistant message, `last_turn` those since the last question, `all` every token;
                a message's own weight comes first.
            max_length: most tokens; None sets no limit.
            overlength: what to do with a longer record.
            counts: told what was kept, dropped and truncated.
        Returns: None when the record was dropped.
        Raises:
            DataError: names the row: it is a preference pair, is too long, trains no token, or the template refuses it.
        """
        if record.chosen or record.rejected:
            raise DataError(f"{record.source}: this row is a preference pair; train on it with `llmkit train dpo`")
        weights = _message_weights(record.messages, train_on)
        sample = self._encode(record.messages, weights, 1.0 if train_on == "all" else 0.0, record.source)
        kept = _fit([sample], max_length, overlength, counts)
        return kept[0] if kept else None

    def pair(
        self,
        record: Record,
        max_length: int | None = None,
        overlength: Overlength = "error",
        counts: RowCounts | None = None,
    ) -> PreferencePair | None:
        """Both answers after their prompt; only the answers carry loss.

        Args:
            record: a preference pair.
            max_length: most tokens of prompt and answer; None sets no limit.
            overlength: what to do when either is longer.
            counts: told what was kept, dropped and truncated.
        Returns: None when the record was dropped.
        Raises:
            DataError: names the row: it is no preference pair, is too long, or the template refuses it.
        """
        if not (record.chosen and record.rejected):
            raise DataError(f"{record.source}: no chosen and rejected answers; preference training needs both")
        samples = [self._continuation(record, side) for side in (record.chosen, record.rejected)]
        kept = _fit(samples, max_length, overlength, counts)
        return PreferencePair(*kept) if kept else None

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        """Token ids as text, exactly as they are."""
        text = self._tokenizer.decode(
            list(ids), skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        assert isinstance(text, str)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """The text that each token adds; joined they are `decode(ids)`.

        A character made of several tokens is given to the last of them.
        """
        pieces: list[str] = []
        start = read = 0
        for end in range(1, len(ids) + 1):
            before = self.decode(ids[start:read])
            text = self.decode(ids[start:end])
            if text.endswith(REPLACEMENT) and end < len(ids):
                pieces.append("")
                continue
            pieces.append(text[len(before) :])
            start, read = read, end
        return pieces

    @cached_property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Ids that end a turn: the template's end-of-turn token, then the tokenizer's end-of-text token.

        Raises:
            ModelError: there is neither.
        """
        tokens = dict.fromkeys((self.template.end_of_turn, self._tokenizer.eos_token))
        ids = [self._tokenizer.convert_tokens_to_ids(token) for token in tokens if isinstance(token, str)]
        stops = tuple(token_id for token_id in ids if isinstance(token_id, int))
        if not stops:
            raise ModelError(
                f"{self._tokenizer.name_or_path}: no token ends an answer: the tokenizer has no eos_token, and its "
                "chat template writes no special token after an assistant's message"
            )
        return stops

    def _ids(self, messages: Sequence[Message], source: Source | None, *, generation_prompt: bool) -> list[int]:
        text = self.template.render(messages, generation_prompt=generation_prompt, place=source)
        spelled = self.template.spelled_specials(messages, text, generation_prompt=generation_prompt, place=source)
        with _naming(source):
            return self._encoder.encode(text, spelled).token_ids

    def _continuation(self, record: Record, side: Sequence[Message]) -> Sample:
        """The prompt without loss, then one side's assistant messages with it."""
        weights = (*(None for _ in record.messages), *_message_weights(side, "assistant"))
        return self._encode((*record.messages, *side), weights, 0.0, record.source)

    def _encode(
        self, messages: Sequence[Message], weights: Sequence[float | None], default: float, source: Source
    ) -> Sample:
        """Tokens of a conversation.

        Args:
            messages: the conversation.
            weights: loss weight of each message; None leaves `default`.
            default: weight of all other text.
            source: where it came from.
        """
        if not messages:
            raise DataError(f"{source}: the row has no messages")
        wanted = [weight is not None and weight != default for weight in weights]
        layout = lay_out(self.template, messages, wanted, source)
        by_character = [default] * len(layout.text)
        for spans, weight in zip(layout.turns, weights, strict=True):
            for start, end in spans:
                assert weight is not None
                by_character[start:end] = [weight] * (end - start)
        with _naming(source):
            encoded = self._encoder.encode(layout.text, layout.spelled)
        loss_weights = [max(by_character[start:end], default=0.0) for start, end in encoded.spans]
        # Nothing comes before the first token that could predict it.
        loss_weights[:1] = [0.0]
        return Sample(encoded.token_ids, loss_weights, source)


def _message_weights(messages: Sequence[Message], train_on: TrainOn) -> list[float | None]:
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


def _fit(
    samples: list[Sample], max_length: int | None, overlength: Overlength, counts: RowCounts | None
) -> list[Sample]:
    """Samples of one row within the limit; none when the row is dropped."""
    counts = counts or RowCounts()
    counts.rows += 1
    source = samples[0].source
    for sample in samples:
        _check_trained(sample, "it has no assistant message with text, or every weight is 0")
    longest = max(len(sample.token_ids) for sample in samples)
    if max_length is not None and longest > max_length:
        if overlength == "error":
            raise DataError(
                f"{source}: {longest} tokens, more than data.max_length={max_length}. Raise it, or choose "
                "--set data.overlength=drop or --set data.overlength=truncate_right"
            )
        if overlength == "drop":
            counts.dropped += 1
            return []
        counts.truncated += 1
        samples = [_cut(sample, max_length) for sample in samples]
    for sample in samples:
        counts.tokens += len(sample.token_ids)
        counts.trained_tokens += sum(weight > 0 for weight in sample.loss_weights)
    return samples


def _cut(sample: Sample, max_length: int) -> Sample:
    """The sample's first tokens, of which one at least must be trained."""
    cut = Sample(sample.token_ids[:max_length], sample.loss_weights[:max_length], sample.source)
    _check_trained(
        cut,
        f"its first data.max_length={max_length} tokens are all prompt; raise it or choose --set data.overlength=drop",
    )
    return cut


def _check_trained(sample: Sample, reason: str) -> None:
    if not any(sample.loss_weights):
        raise DataError(f"{sample.source}: no token of this row would be trained: {reason}")


@contextmanager
def _naming(source: Source | None) -> Iterator[None]:
    """Put the row's place before an error that does not know it."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source}: {error}" if source else str(error)) from None
