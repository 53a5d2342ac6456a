"""The deltas of an engine as pieces of answers."""

import secrets
import string
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from llmkit.data.chat.parsing.pieces import CallDelta, Parser, Piece, PlainText
from llmkit.data.chat.parsing.reasoning import OPEN, Thinking
from llmkit.data.chat.parsing.tools import PARSERS, Forced
from llmkit.engines.inference.contract import Delta

ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True)
class Reading:
    """How the answers to one conversation are to be read.

    Attributes:
        calls: name of a tool parser, `forced` for calls that a structure makes the model write; None reads no calls.
        named: the tool whose arguments, and nothing else, the model is made to write.
        reasoning: whether thoughts come first.
        thinking_begun: whether the prompt ends inside the thoughts.
        parallel: whether an answer may have several calls; the first alone is taken otherwise.
    """

    calls: str | None = None
    named: str | None = None
    reasoning: bool = False
    thinking_begun: bool = False
    parallel: bool = True

    def parser(self) -> Parser:
        """A parser for one answer."""
        parser: Parser
        if self.named is not None:
            parser = _Named(self.named)
        elif self.calls is not None:
            parser = Forced() if self.calls == "forced" else PARSERS[self.calls]()
        else:
            parser = PlainText()
        return Thinking(parser, begun=self.thinking_begun) if self.reasoning else parser

    @property
    def special_marker(self) -> str | None:
        """A special token that begins calls: the engine's text does not have it."""
        return PARSERS[self.calls].special_marker if self.calls in PARSERS else None


class _Named:
    """Everything is the arguments of one tool."""

    def __init__(self, name: str) -> None:
        self._name: str | None = name

    def push(self, text: str) -> Piece:
        """See `Parser`."""
        name, self._name = self._name, None
        return Piece(calls=[CallDelta(0, name, text)]) if text or name else Piece()

    def finish(self) -> Piece:
        """See `Parser`."""
        return Piece()


class AnswerEvent(NamedTuple):
    """What a delta adds to an answer.

    Attributes:
        piece: the text of the delta, divided.
        delta: as the engine gave it.
        is_last: whether the answer has ended.
    """

    piece: Piece
    delta: Delta

    @property
    def is_last(self) -> bool:
        """Whether the answer has ended."""
        return self.delta.stop_reason is not None


async def read_answers(
    deltas: AsyncGenerator[Delta], reading: Reading, tokenizer: PreTrainedTokenizerBase
) -> AsyncGenerator[AnswerEvent]:
    """Divide the text of every completion of a request."""
    parsers: dict[int, Parser] = {}
    marker = _Marker(reading.special_marker, tokenizer)
    try:
        async for delta in deltas:
            if delta.index not in parsers:
                parsers[delta.index] = reading.parser()
            parser = parsers[delta.index]
            piece = parser.push(marker.put_back(delta))
            if delta.stop_reason is not None:
                _extend(piece, parser.finish())
            if not reading.parallel:
                piece.calls = [call for call in piece.calls if call.index == 0]
            yield AnswerEvent(piece, delta)
    finally:
        await deltas.aclose()


def new_call_id(parser: str | None) -> str:
    """An id for a call; Mistral's templates take nine letters and digits, and nothing else."""
    if parser == "mistral":
        return "".join(secrets.choice(ALPHANUMERIC) for _ in range(9))
    return f"call_{secrets.token_hex(12)}"


def begins_thinking(prompt_end: str) -> bool:
    """Whether a prompt leaves the model inside its thoughts."""
    return prompt_end.rstrip().endswith(OPEN)


@dataclass
class WholeCall:
    """A call of which everything has come."""

    id: str
    name: str = ""
    arguments: str = ""


@dataclass
class WholeAnswer:
    """An answer that has ended."""

    reasoning: str = ""
    content: str = ""
    calls: list[WholeCall] = field(default_factory=list[WholeCall])
    deltas: list[Delta] = field(default_factory=list[Delta])

    def add(self, event: AnswerEvent, new_id: Callable[[], str]) -> None:
        """Take what comes next."""
        self.reasoning += event.piece.reasoning
        self.content += event.piece.content
        self.deltas.append(event.delta)
        for call in event.piece.calls:
            if call.name is not None:
                self.calls.append(WholeCall(new_id(), call.name))
            self.calls[-1].arguments += call.arguments

    @property
    def end(self) -> Delta:
        """The last delta."""
        return self.deltas[-1]

    @property
    def token_ids(self) -> list[int]:
        """Every token."""
        return [token for delta in self.deltas for token in delta.token_ids]


class _Marker:
    """Puts a special token that begins calls back into the text that engines leave it out of."""

    def __init__(self, marker: str | None, tokenizer: PreTrainedTokenizerBase) -> None:
        self._text = marker or ""
        token_id = tokenizer.convert_tokens_to_ids(marker) if marker else None
        is_special = isinstance(token_id, int) and token_id in set(tokenizer.all_special_ids) | {
            found for found, token in tokenizer.added_tokens_decoder.items() if token.special
        }
        self._id = token_id if is_special else None
        self._tokenizer = tokenizer

    def put_back(self, delta: Delta) -> str:
        """The delta's text with the marker in its place."""
        if self._id is None or self._id not in delta.token_ids:
            return delta.text
        text, rest = "", delta.text
        # From the end: text that was held back before stands at the beginning.
        ids = delta.token_ids
        while self._id in ids:
            place = len(ids) - 1 - ids[::-1].index(self._id)
            behind = str(self._tokenizer.decode(ids[place + 1 :], skip_special_tokens=True)) if ids[place + 1 :] else ""
            cut = len(rest) - len(behind) if rest.endswith(behind) else 0
            text, rest, ids = self._text + rest[cut:] + text, rest[:cut], ids[:place]
        return rest + text


def _extend(piece: Piece, more: Piece) -> None:
    piece.reasoning += more.reasoning
    piece.content += more.content
    piece.calls += more.calls
