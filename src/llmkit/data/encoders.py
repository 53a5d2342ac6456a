"""Encoders of records: samples to fine-tune on, preference pairs, and prompts to sample from.

Each takes a list of records, since tokenizing many texts at once is faster, and can be pickled for worker processes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.chat.template_input import Chat
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.overlength import fit_pair, fit_sample
from llmkit.data.turns import prompt_messages
from llmkit.data.weighing import Weighed, as_samples, check_tokens, message_weights, weigh_chat, weigh_text
from llmkit.errors import DataError
from llmkit.types import Message, PreferencePair, Record, Sample

T = TypeVar("T")


class SampleEncoder:
    """Conversations, plain text and tokenized rows to samples with loss weights.

    Attributes:
        codec: tokenizer and chat template.
        config: which tokens train, and what becomes of rows that are too long.
    """

    def __init__(self, codec: TextCodec, config: SFTDataConfig) -> None:
        self.codec = codec
        self.config = config

    def __call__(self, records: Sequence[Record]) -> list[Encoded[Sample] | DataError]:
        """What becomes of each record; the error of one that cannot be used names its place."""
        prepared = [attempt(self._prepare, record) for record in records]
        samples = iter(as_samples(self.codec, [one for one in prepared if not isinstance(one, Sample)]))
        results = [one if isinstance(one, Sample) else next(samples) for one in prepared]
        return [attempt(lambda sample: fit_sample(sample, self.config), sample) for sample in results]

    def fingerprint(self) -> str:
        """The same for encoders that give the same samples."""
        return _fingerprint(self, ("train_on", "train_end_of_turn", "max_length", "overlength", "untrained"))

    def _prepare(self, record: Record) -> Weighed | Sample:
        if record.chosen or record.rejected:
            raise DataError(f"{record.source}: this row is a preference pair; train on it with `llmkit train dpo`")
        if record.label is False:
            raise DataError(
                f"{record.source}: this row's answer is labelled as a bad one, and fine-tuning would teach it; take "
                "such rows out, or leave them out with --set data.on_error=skip --set data.max_skipped=N"
            )
        if record.tokens is not None:
            return check_tokens(self.codec, record.tokens, record.source)
        if record.text is not None:
            return weigh_text(self.codec, record.text, record.source)
        config = self.config
        chat = Chat(record.messages, record.tools, record.source)
        weights = message_weights(record.messages, config.train_on)
        default = 1.0 if config.train_on == "all" else 0.0
        return weigh_chat(self.codec, chat, record.source, weights, default, config.train_end_of_turn)


class PairEncoder:
    """Preference pairs to two samples each, which begin with the same prompt; the answers alone carry loss.

    Attributes:
        codec: tokenizer and chat template.
        config: what becomes of rows that are too long.
    """

    def __init__(self, codec: TextCodec, config: DataConfig) -> None:
        self.codec = codec
        self.config = config

    def __call__(self, records: Sequence[Record]) -> list[Encoded[PreferencePair] | DataError]:
        """What becomes of each record; the error of one that cannot be used names its place."""
        chosen = [attempt(lambda record: self._prepare(record, record.chosen), record) for record in records]
        rejected = [attempt(lambda record: self._prepare(record, record.rejected), record) for record in records]
        samples = as_samples(self.codec, [*chosen, *rejected])
        sides = zip(samples[: len(records)], samples[len(records) :], strict=True)
        return [self._fit(ours, theirs) for ours, theirs in sides]

    def fingerprint(self) -> str:
        """The same for encoders that give the same pairs."""
        return _fingerprint(self, ("max_length", "overlength", "untrained"))

    def _prepare(self, record: Record, answer: Sequence[Message]) -> Weighed:
        """The prompt without loss, then one side's assistant messages with it."""
        if not (record.chosen and record.rejected):
            raise DataError(f"{record.source}: no chosen and rejected answers; preference training needs both")
        chat = Chat((*record.messages, *answer), record.tools, record.source)
        weights = [*(None for _ in record.messages), *message_weights(answer, "assistant")]
        return weigh_chat(self.codec, chat, record.source, weights, 0.0, train_end=True)

    def _fit(self, chosen: Sample | DataError, rejected: Sample | DataError) -> Encoded[PreferencePair] | DataError:
        if isinstance(chosen, DataError):
            return chosen
        if isinstance(rejected, DataError):
            return rejected
        return attempt(lambda pair: fit_pair(pair, self.config), PreferencePair(chosen, rejected))


class PromptEncoder:
    """Keeps the records whose prompts leave room for a completion.

    Attributes:
        codec: tokenizer and chat template.
        config: most tokens of prompt and completion, and what becomes of a longer prompt.
        max_new_tokens: most tokens of a completion.
        setting: what says so, to name it in errors.
    """

    def __init__(
        self,
        codec: TextCodec,
        config: PromptDataConfig,
        max_new_tokens: int,
        setting: str = "sampling.max_new_tokens",
    ) -> None:
        self.codec = codec
        self.config = config
        self.max_new_tokens = max_new_tokens
        self.setting = setting

    def __call__(self, records: Sequence[Record]) -> list[Encoded[Record] | DataError]:
        """What becomes of each record; the error of one that cannot be used names its place."""
        prompts = as_samples(self.codec, [attempt(self._prepare, record) for record in records])
        return [attempt(partial(self._fit, record), prompt) for record, prompt in zip(records, prompts, strict=True)]

    def fingerprint(self) -> str:
        """The same for encoders that keep the same records."""
        return _fingerprint(self, ("max_length", "overlength"), self.max_new_tokens)

    def _prepare(self, record: Record) -> Weighed:
        if not prompt_messages(record):
            raise DataError(f"{record.source}: this row asks nothing: it has no message before an answer to sample")
        chat = Chat(prompt_messages(record), record.tools, record.source)
        text, spelled = self.codec.render_prompt(chat)
        return Weighed(text, record.source, spelled)

    def _fit(self, record: Record, prompt: Sample) -> Encoded[Record]:
        length = len(prompt.token_ids)
        if length + self.max_new_tokens <= self.config.max_length:
            return Encoded((record,), num_tokens=length)
        if self.config.overlength == "drop":
            return Encoded((), "dropped")
        raise DataError(
            f"{record.source}: a prompt of {length} tokens and {self.setting}={self.max_new_tokens} are more "
            f"than data.max_length={self.config.max_length}. Change one of them, or choose --set data.overlength=drop"
        )


V = TypeVar("V")


def attempt(make: Callable[[V], T], value: V | DataError) -> T | DataError:
    """What `make` makes of a value, or the error that it raises; an error in place of the value stays one."""
    if isinstance(value, DataError):
        return value
    try:
        return make(value)
    except DataError as error:
        return error


def _fingerprint(encoder: Any, settings: Sequence[str], *others: int) -> str:
    options = {name: getattr(encoder.config, name) for name in settings}
    parts = [type(encoder).__name__, encoder.codec.fingerprint, options, others]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
