"""Tokens as text while they come: whole characters only, and nothing that may be the start of a stop string."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from llmkit.engines.inference.detokenizer import make_detokenizer
from llmkit.engines.inference.stop_strings import StopStrings
from llmkit.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class TextPiece(NamedTuple):
    """What some tokens add to a text.

    Attributes:
        text: can be shown; what follows depends on later tokens.
        stop: the stop string that ended the text, which is without it.
        num_tokens: how many of the tokens were taken: all, or up to the one that completed the stop string.
    """

    text: str
    stop: str | None
    num_tokens: int


class TextStream:
    """The text of one completion.

    Without stop strings the pieces and what `finish` returns, joined, are
    `tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)` of all tokens.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", sampling: SamplingParams) -> None:
        """Stop strings that are complete within the first `sampling.min_new_tokens` tokens are text like any other."""
        self._detokenizer = make_detokenizer(tokenizer)
        self._stops = StopStrings(sampling.stop)
        self._has_stops = bool(sampling.stop)
        self._min_new_tokens = sampling.min_new_tokens
        self._num_tokens = 0

    @property
    def stop(self) -> str | None:
        """The stop string that ended the text, if one did."""
        return self._stops.matched

    def push(self, token_ids: Sequence[int]) -> TextPiece:
        """Take the next tokens; those after the end of the text are ignored."""
        shown: list[str] = []
        for count, token_id in enumerate(token_ids, start=1):
            if self.stop is not None:
                return TextPiece("".join(shown), self.stop, count - 1)
            shown.append(self._take(token_id))
        return TextPiece("".join(shown), self.stop, len(token_ids))

    def finish(self) -> str:
        """What was held back; nothing after a stop string."""
        if self.stop is not None:
            return ""
        text = self._detokenizer.finish()
        return self._stops.push(text, counts=self._counts) + self._stops.finish()

    @property
    def _counts(self) -> bool:
        return self._num_tokens > self._min_new_tokens

    def _take(self, token_id: int) -> str:
        self._num_tokens += 1
        text = self._detokenizer.push(token_id)
        shown = self._stops.push(text, counts=self._counts)
        if self._has_stops and self._counts and self.stop is None:
            # The text of bytes that are held back may yet change, but not when this token is the last.
            ahead = self._detokenizer.ahead()
            if ahead and self._stops.would_match(ahead):
                shown += self._stops.push(ahead)
        return shown


class NoText:
    """The text of a completion where there is no tokenizer: none."""

    def push(self, token_ids: Sequence[int]) -> TextPiece:
        """Nothing to show."""
        return TextPiece("", None, len(token_ids))

    def finish(self) -> str:
        """Nothing was held back."""
        return ""


def open_text_stream(tokenizer: "PreTrainedTokenizerBase | None", sampling: SamplingParams) -> TextStream | NoText:
    """The text of one completion while its tokens come."""
    return NoText() if tokenizer is None else TextStream(tokenizer, sampling)
