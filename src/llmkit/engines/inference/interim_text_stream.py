"""Text of a completion while its tokens come: whole characters only, and nothing behind a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmkit.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextPiece(NamedTuple):
    """What some tokens add.

    Attributes:
        text: what can be shown now.
        stop: the stop string that ended the text, if one did.
    """

    text: str
    stop: str | None = None


class TextStream:
    """Turns the tokens of one completion into text as they come."""

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", sampling: SamplingParams) -> None:
        self._tokenizer = tokenizer
        self._stop = sampling.stop
        self._min_tokens = sampling.min_new_tokens
        self._ids: list[int] = []
        self._start = self._read = 0
        self._held = ""

    def push(self, token_ids: Sequence[int]) -> TextPiece:
        """Take the next tokens; after a piece with `stop`, nothing may follow."""
        shown = ""
        for token_id in token_ids:
            self._ids.append(token_id)
            self._held += self._next_text()
            stop = self._find_stop() if len(self._ids) > self._min_tokens else None
            if stop is not None:
                text = self._held[: self._held.index(stop)]
                self._held = ""
                return TextPiece(shown + text, stop)
            shown += self._release()
        return TextPiece(shown)

    def finish(self) -> str:
        """What was held back."""
        rest = self._held + self._decode(self._start, len(self._ids))[len(self._decode(self._start, self._read)) :]
        self._held = ""
        return rest

    def _next_text(self) -> str:
        before = self._decode(self._start, self._read)
        text = self._decode(self._start, len(self._ids))
        if text.endswith(REPLACEMENT):
            return ""
        self._start, self._read = self._read, len(self._ids)
        return text[len(before) :]

    def _decode(self, start: int, end: int) -> str:
        return str(
            self._tokenizer.decode(self._ids[start:end], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def _find_stop(self) -> str | None:
        found = [(self._held.index(stop), stop) for stop in self._stop if stop in self._held]
        return min(found)[1] if found else None

    def _release(self) -> str:
        """What is held, but for its longest end that a stop string begins with."""
        longest = max((len(stop) for stop in self._stop), default=0)
        for size in range(min(longest - 1, len(self._held)), 0, -1):
            if any(stop.startswith(self._held[-size:]) for stop in self._stop):
                text, self._held = self._held[:-size], self._held[-size:]
                return text
        text, self._held = self._held, ""
        return text


class NoText:
    """The text of a completion where there is no tokenizer: none."""

    def push(self, token_ids: Sequence[int]) -> TextPiece:
        """Nothing to show."""
        return TextPiece("")

    def finish(self) -> str:
        """Nothing was held back."""
        return ""


def open_text_stream(tokenizer: "PreTrainedTokenizerBase | None", sampling: SamplingParams) -> TextStream | NoText:
    """The text of one completion while its tokens come."""
    return NoText() if tokenizer is None else TextStream(tokenizer, sampling)
