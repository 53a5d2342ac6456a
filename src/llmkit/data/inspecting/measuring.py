"""What is counted of one row, small enough to be sent from a worker process for every row of a large set."""

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from llmkit.config.schema import DataConfig, PromptDataConfig
from llmkit.data.contract import Encoded, Encoder
from llmkit.data.inspecting.labelling import Item, Labeller, Whole, Window, windows
from llmkit.data.turns import split_turns
from llmkit.errors import DataError
from llmkit.types import Message, Record, Source


@dataclass(slots=True)
class RoleCounts:
    """Messages of one role, their tokens, and those of them that carry loss."""

    messages: int = 0
    tokens: int = 0
    trained_tokens: int = 0

    def add(self, other: "RoleCounts") -> None:
        """Count what `other` counted."""
        self.messages += other.messages
        self.tokens += other.tokens
        self.trained_tokens += other.trained_tokens


@dataclass(frozen=True, slots=True)
class Measured:
    """The figures of one row.

    Attributes:
        source: where it came from.
        lengths: tokens of each sequence that is trained on; a pair has two.
        item_lengths: tokens of each thing that is trained on; a pair counts as one.
        whole_tokens: tokens of all its sequences before anything was cut; 0 when that is not known.
        roles: counts by role, for the sequences that are trained on.
        tokens_digest: 64 bits of the sequences' ids; 0 when nothing is trained on.
        prompt_digest: 64 bits of the messages before the answer; 0 when there are none.
        answer_digest: 64 bits of the answer.
        num_turns: answers of the assistant.
        features: what the row has besides plain messages: `tools`, `media`, `reasoning`, `weights`, `label`, ...
        columns: its extra columns.
    """

    source: Source
    lengths: tuple[int, ...] = ()
    item_lengths: tuple[int, ...] = ()
    whole_tokens: int = 0
    roles: dict[str, RoleCounts] = field(default_factory=dict)
    tokens_digest: int = 0
    prompt_digest: int = 0
    answer_digest: int = 0
    num_turns: int = 0
    features: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


class MeasuringEncoder:
    """Encodes records as a run does and hands on only their figures; one item for every record that is not faulty."""

    def __init__(self, encoder: Encoder[Item], labeller: Labeller, config: DataConfig | PromptDataConfig) -> None:
        """
        Args:
            encoder: the run's own.
            labeller: tells roles apart.
            config: the run's; says how sequences are cut.
        """
        self._encoder = encoder
        self._labeller = labeller
        self._config = config

    def __call__(self, records: Sequence[Record]) -> list[Encoded[Measured] | DataError]:
        """The figures of each record, with the outcome that the run's own encoder tells."""
        encoded = list(self._encoder(records))
        sound = [record for record, result in zip(records, encoded, strict=True) if isinstance(result, Encoded)]
        wholes = iter(self._labeller(sound))
        return [
            result if isinstance(result, DataError) else self._measured(record, result, next(wholes))
            for record, result in zip(records, encoded, strict=True)
        ]

    def fingerprint(self) -> str:
        """That of the run's encoder: figures follow from it."""
        return self._encoder.fingerprint()

    def _measured(self, record: Record, encoded: Encoded[Item], wholes: Sequence[Whole]) -> Encoded[Measured]:
        figures = measure(record, wholes, windows(wholes, encoded, self._config))
        return Encoded((figures,), encoded.outcome, encoded.num_tokens, encoded.num_trained)


def measure(record: Record, wholes: Sequence[Whole], trained: Sequence[Window]) -> Measured:
    """The figures of one record.

    Args:
        record: the row.
        wholes: its sequences before anything was cut.
        trained: what is trained on of them.
    """
    lengths = tuple(len(window.sample.token_ids) for window in trained)
    sides = len(wholes)
    prompt, answer = _prompt_and_answer(record)
    return Measured(
        source=record.source,
        lengths=lengths,
        # Both sides of a pair come one after the other.
        item_lengths=tuple(sum(lengths[start : start + sides]) for start in range(0, len(lengths), sides)),
        whole_tokens=sum(len(whole.token_ids) for whole in wholes),
        roles=count_roles(trained),
        tokens_digest=_digest_of_tokens(window.sample.token_ids for window in trained) if trained else 0,
        prompt_digest=_digest(prompt) if prompt else 0,
        answer_digest=_digest(answer),
        num_turns=sum(message.role == "assistant" for message in (*record.messages, *record.chosen)),
        features=tuple(_features(record)),
        columns=tuple(record.extra),
    )


def count_roles(trained: Iterable[Window]) -> dict[str, RoleCounts]:
    """Messages, tokens and trained tokens by role; a prompt that two answers share counts with each of them."""
    counts: dict[str, RoleCounts] = {}
    # Windows of one whole share its messages.
    counted: set[tuple[int, int]] = set()
    for window in trained:
        for (message, is_trained), tokens in window.tokens_by_message().items():
            count = counts.setdefault(window.role(message), RoleCounts())
            count.tokens += tokens
            count.trained_tokens += tokens if is_trained else 0
            if message and (id(window.whole), message) not in counted:
                counted.add((id(window.whole), message))
                count.messages += 1
    return counts


def _features(record: Record) -> Iterable[str]:
    messages = (*record.messages, *record.chosen, *record.rejected)
    if record.tools is not None:
        yield "tools"
    if any(message.tool_calls for message in messages):
        yield "tool calls"
    if any(message.media for message in messages):
        yield "media"
    if any(message.reasoning for message in messages):
        yield "reasoning"
    if any(part.weight is not None for message in messages for part in (message, *message.parts)):
        yield "weights"
    if record.label is not None:
        yield "label"
    if record.answer is not None:
        yield "reference answer"
    if record.text is not None:
        yield "plain text"
    if record.tokens is not None:
        yield "tokens"


def _prompt_and_answer(record: Record) -> tuple[list[object], list[object]]:
    """What is asked and what is answered, to compare rows by."""
    if record.chosen or record.rejected:
        prompt, answers = record.messages, (record.chosen, record.rejected)
    else:
        prompt, answer = split_turns(record.messages)
        answers = (answer,)
    asked = [record.tools, *map(_said, prompt)] if prompt else []
    return asked, [record.answer, *([_said(message) for message in answer] for answer in answers)]


def _said(message: Message) -> tuple[object, ...]:
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    return (
        message.role,
        message.name,
        message.reasoning,
        [(part.type, part.text, part.url) for part in message.parts],
        calls,
    )


def _digest(value: object) -> int:
    return _as_number(hashlib.blake2b(repr(value).encode("utf-8", "surrogatepass"), digest_size=8))


def _digest_of_tokens(sequences: Iterable[Sequence[int]]) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for ids in sequences:
        digest.update(len(ids).to_bytes(8, "little"))
        digest.update(array("q", ids).tobytes())
    return _as_number(digest)


def _as_number(digest: "hashlib.blake2b") -> int:
    """64 bits, never 0, which stands for nothing."""
    return int.from_bytes(digest.digest(), "little") or 1
