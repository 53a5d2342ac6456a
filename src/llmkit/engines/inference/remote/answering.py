"""What a server draws, as the caller is to see it: with text, and up to the first stop string."""

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.engines.inference.stop_strings import StopStrings
from llmkit.engines.inference.text_stream import open_text_stream

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Answer:
    """The completions of one request while they come.

    Stop strings are found here, in the text that our own rules make of the tokens, also where a server looks for them:
    no server tells at which token a stop string was complete.
    """

    def __init__(self, request: GenerationRequest, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        self._texts = [open_text_stream(tokenizer, request.sampling) for _ in range(request.num_completions)]
        self._stop_strings = request.sampling.stop
        self._given: dict[int, StopStrings] = {}
        self._is_ended = [False] * request.num_completions
        self._num_left = request.num_completions

    @property
    def is_whole(self) -> bool:
        """Whether all completions have ended."""
        return self._num_left == 0

    def take(self, delta: Delta) -> Delta | None:
        """A server's delta with its text; None after the completion's end."""
        index = delta.index
        if self._is_ended[index]:
            return None
        if delta.text or index in self._given:
            return self._take_text(delta)
        text, stop, count = self._texts[index].push(delta.token_ids)
        if stop is not None:
            self._end(index)
            ids, scores, versions = delta.token_ids[:count], delta.scores[:count], delta.versions[:count]
            return replace(
                delta, token_ids=ids, scores=scores, versions=versions, text=text, stop_reason="stop", stop=stop
            )
        if delta.stop_reason is not None:
            self._end(index)
            text += self._texts[index].finish()
        return replace(delta, text=text) if text else delta

    def _take_text(self, delta: Delta) -> Delta:
        """A delta of a server that gives text: the tokens are made up, and stop strings cut the text alone."""
        stops = self._given.setdefault(delta.index, StopStrings(self._stop_strings))
        text = stops.push(delta.text)
        if stops.matched is not None:
            self._end(delta.index)
            return replace(delta, text=text, stop_reason="stop", stop=stops.matched)
        if delta.stop_reason is not None:
            self._end(delta.index)
            text += stops.finish()
        return replace(delta, text=text)

    def cancelled(self) -> Iterator[Delta]:
        """Ends of the completions that have none."""
        for index, is_ended in enumerate(self._is_ended):
            if not is_ended:
                self._end(index)
                rest = self._given[index] if index in self._given else self._texts[index]
                yield Delta(index, text=rest.finish(), stop_reason="cancelled")

    def _end(self, index: int) -> None:
        self._is_ended[index] = True
        self._num_left -= 1
