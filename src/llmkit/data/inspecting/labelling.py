"""Which message each token of a sequence comes from.

A record is encoded a second time with the number of each message as that message's loss weight: the weights that come
back tell the messages apart just as those of a run tell trained tokens from others.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmkit.config.schema import DataConfig, PromptDataConfig, SFTDataConfig
from llmkit.data.codec import TextCodec
from llmkit.data.contract import Encoded
from llmkit.data.encoders import SampleEncoder
from llmkit.data.turns import prompt_messages
from llmkit.errors import DataError
from llmkit.types import Message, Part, PreferencePair, Record, Sample

Item = Sample | PreferencePair | Record
"""What the encoders of the runs make of a record."""
TEMPLATE = "template"
TEXT = "text"
UNKNOWN = "not told apart"
NO_LIMIT = 1 << 40


@dataclass(frozen=True, slots=True)
class Whole:
    """A sequence before anything of it is cut.

    Attributes:
        name: `chosen`, `rejected` or `prompt`; empty for an ordinary sample.
        token_ids: T ids.
        messages: for each token the number of its message, from 1; 0 belongs to the template.
        roles: who says each message, in order.
        fault: why tokens could not be told apart; empty when they were.
    """

    name: str
    token_ids: list[int]
    messages: list[int]
    roles: tuple[str, ...]
    fault: str = ""

    def role(self, message: int) -> str:
        """Who says the message of this number."""
        if self.fault:
            return UNKNOWN
        return self.roles[message - 1] if message else TEMPLATE


@dataclass(frozen=True, slots=True)
class Window:
    """What is trained on of a whole sequence.

    Attributes:
        whole: what it was cut from.
        sample: its T tokens with their loss weights.
        start: where in the whole it begins; None when it was not found there.
    """

    whole: Whole
    sample: Sample
    start: int | None

    @property
    def messages(self) -> list[int]:
        """For each token the number of its message; 0 for the template's, and where it is not known."""
        length = len(self.sample.token_ids)
        if self.start is None:
            return [0] * length
        known = self.whole.messages[self.start : self.start + length]
        return known + [0] * (length - len(known))

    @property
    def roles(self) -> list[str]:
        """For each token who says it."""
        return [self.role(message) for message in self.messages]

    def role(self, message: int) -> str:
        """Who says the message of this number."""
        return UNKNOWN if self.start is None else self.whole.role(message)

    def tokens_by_message(self) -> Counter[tuple[int, bool]]:
        """How many tokens each message has, those that train apart from those that do not."""
        return Counter(zip(self.messages, map(bool, self.sample.loss_weights), strict=True))

    @property
    def num_cut_before(self) -> int:
        """Tokens of the whole before it."""
        return self.start or 0

    @property
    def num_cut_after(self) -> int:
        """Tokens of the whole after it."""
        if self.start is None:
            return 0
        return max(0, len(self.whole.token_ids) - self.start - len(self.sample.token_ids))


class Labeller:
    """Tells which message each token comes from. It can be pickled, for worker processes."""

    def __init__(self, codec: TextCodec, *, special_tokens_in_text: bool, for_prompts: bool) -> None:
        """
        Args:
            codec: the run's own.
            special_tokens_in_text: as the run has it.
            for_prompts: sequences are prompts that a policy answers.
        """
        self._codec = codec
        self._for_prompts = for_prompts
        self._encoder = SampleEncoder(
            codec,
            SFTDataConfig.model_validate(
                {
                    "train_on": "assistant",
                    "max_length": NO_LIMIT,
                    "untrained": "drop",
                    "special_tokens_in_text": special_tokens_in_text,
                }
            ),
        )

    def __call__(self, records: Sequence[Record]) -> list[list[Whole]]:
        """The whole sequences of each record: one, or both sides of a pair."""
        sides = [self._sides(record) for record in records]
        numbered = [_numbered(side) for row in sides for _, side, _ in row]
        results = iter(self._encoder(numbered))
        return [[self._whole(name, side, roles, next(results)) for name, side, roles in row] for row in sides]

    def _sides(self, record: Record) -> list[tuple[str, Record, tuple[str, ...]]]:
        """Name, conversation and roles of each sequence that the record becomes."""
        if self._for_prompts:
            prompt = replace(record, messages=prompt_messages(record), chosen=(), rejected=())
            return [("prompt", prompt, _roles(prompt.messages))]
        if not record.chosen and not record.rejected:
            return [("", record, _roles(record.messages))]
        return [
            (
                name,
                replace(record, messages=(*record.messages, *answer), chosen=(), rejected=()),
                (*_roles(record.messages), *(name if role == "assistant" else role for role in _roles(answer))),
            )
            for name, answer in (("chosen", record.chosen), ("rejected", record.rejected))
        ]

    def _whole(self, name: str, side: Record, roles: tuple[str, ...], result: "Encoded[Sample] | DataError") -> Whole:
        if isinstance(result, DataError):
            whole = Whole(name, [], [], roles, str(result))
        elif not result.items:
            whole = Whole(name, [], [], roles, "no message of it is rendered")
        elif side.messages:
            (sample,) = result.items
            whole = Whole(name, sample.token_ids, [round(weight) for weight in sample.loss_weights], roles)
        else:  # plain text, or tokens
            (sample,) = result.items
            whole = Whole(name, sample.token_ids, [1] * len(sample.token_ids), (TEXT,))
        return self._as_prompt(whole, side) if self._for_prompts else whole

    def _as_prompt(self, whole: Whole, side: Record) -> Whole:
        """The same with what makes the model answer in place of what ends a conversation."""
        try:
            ids = self._codec.prompt_ids(side.messages, side.source, side.tools)
        except DataError as error:
            return replace(whole, token_ids=[], messages=[], fault=str(error))
        shared = 0
        while shared < min(len(ids), len(whole.token_ids)) and ids[shared] == whole.token_ids[shared]:
            shared += 1
        fault = whole.fault
        if any(whole.messages[shared:]):
            fault = "the chat template renders the prompt alone in another way"
        return replace(whole, token_ids=ids, messages=whole.messages[:shared] + [0] * (len(ids) - shared), fault=fault)


def windows(wholes: Sequence[Whole], encoded: Encoded[Item], config: DataConfig | PromptDataConfig) -> list[Window]:
    """What is trained on of a record, each sequence with what it was cut from.

    Args:
        wholes: of the record.
        encoded: what the run's encoder made of it.
        config: says how sequences are cut.
    """
    found: list[Window] = []
    after = 0
    for item in encoded.items:
        if isinstance(item, PreferencePair):
            sides = (item.chosen, item.rejected)
            found += [_window(whole, side, 0, config) for whole, side in zip(wholes, sides, strict=True)]
        elif isinstance(item, Record):
            (whole,) = wholes
            found.append(Window(whole, _without_loss(whole.token_ids, item), 0))
        else:
            (whole,) = wholes
            window = _window(whole, item, after, config)
            found.append(window)
            # Windows of a split row begin `max_length` tokens apart; some may have been left out.
            after = (window.start or 0) + config.max_length
    return found


def _window(whole: Whole, sample: Sample, after: int, config: DataConfig | PromptDataConfig) -> Window:
    """Find a sample in the whole that it was cut from, at `after` or behind it."""
    length = len(sample.token_ids)
    last = len(whole.token_ids) - length
    starts = range(after, last + 1, config.max_length)
    if config.overlength == "truncate_left":
        starts = range(max(last, 0), last + 1)
    found = (start for start in starts if whole.token_ids[start : start + length] == sample.token_ids)
    return Window(whole, sample, next(found, None))


def left_out(wholes: Sequence[Whole], record: Record) -> list[Window]:
    """The sequences of a record that is not trained on, without any weight."""
    return [Window(whole, _without_loss(whole.token_ids, record), 0) for whole in wholes if whole.token_ids]


def _without_loss(token_ids: list[int], record: Record) -> Sample:
    return Sample(token_ids, [0.0] * len(token_ids), record.source)


def _roles(messages: Sequence[Message]) -> tuple[str, ...]:
    return tuple(message.role for message in messages)


def _numbered(record: Record) -> Record:
    """The record with the number of each message as its weight, and no weight of a part's own."""
    return replace(
        record,
        messages=tuple(
            replace(message, weight=float(number), content=_without_weights(message))
            for number, message in enumerate(record.messages, start=1)
        ),
    )


def _without_weights(message: Message) -> str | tuple[Part, ...]:
    if isinstance(message.content, str):
        return message.content
    return tuple(replace(part, weight=None) for part in message.content)
