"""The requests of an engine that are under way: let in, drawn, counted, ended."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.engines.inference.remote.answering import Answer
from llmkit.engines.inference.remote.asking import Asking
from llmkit.engines.inference.remote.gate import Gate
from llmkit.engines.inference.remote.time_limits import TimeLimit
from llmkit.errors import EngineError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Requests:
    """Draws, through a gate.

    Attributes:
        gate: closed while servers are paused or get new weights.
        refusal: why nothing is drawn now; None while something can be.
        num_prompt_tokens: asked so far.
        num_cached_tokens: of prompts, as far as servers told.
        num_generated_tokens: drawn so far.
    """

    def __init__(self, asking: Asking, tokenizer: "PreTrainedTokenizerBase | None") -> None:
        self.gate = Gate()
        self.refusal: EngineError | None = None
        self.num_prompt_tokens = self.num_cached_tokens = self.num_generated_tokens = 0
        self._asking = asking
        self._tokenizer = tokenizer
        self._num_ends = 0

    async def draw(self, request: GenerationRequest, *, whole: bool) -> AsyncGenerator[Delta]:
        """Deltas with their text. What its own timeout or `end` stops ends as cancelled.

        Args:
            whole: nobody sees the text, nor anything before the end.
        """
        answer = Answer(request, self._tokenizer if request.sampling.stop or not whole else None)
        now = asyncio.get_running_loop().time()
        limit = TimeLimit(None if request.timeout_seconds is None else now + request.timeout_seconds)
        is_inside, num_ends = False, self._num_ends
        try:
            await limit.wait(self.gate.enter())
            is_inside, num_ends = True, self._num_ends
            if self.refusal is not None:
                raise self.refusal
            self.num_prompt_tokens += len(request.prompt_ids)
            async with aclosing(self._asking.ask(request, whole=whole)) as deltas:
                while not answer.is_whole:
                    delta = answer.take(await limit.wait(deltas.__anext__()))
                    if delta is not None:
                        self.num_generated_tokens += len(delta.token_ids)
                        self.num_cached_tokens += delta.num_cached_tokens or 0
                        yield delta
        except TimeoutError:
            for delta in answer.cancelled():
                yield delta
        except EngineError:
            if self._num_ends == num_ends:
                raise
            for delta in answer.cancelled():
                yield delta
        finally:
            limit.close()
            if is_inside:
                self.gate.leave()

    def end(self) -> None:
        """What fails from now on of the requests that are inside was ended on purpose."""
        self._num_ends += 1

    async def all_ended(self, seconds: float) -> None:
        """Wait until none is inside.

        Raises:
            EngineError: they take too long.
        """
        try:
            async with asyncio.timeout(seconds):
                await self.gate.empty()
        except TimeoutError:
            raise EngineError(
                f"pausing: {self.gate.num_inside} requests have not ended within {seconds:g} seconds"
            ) from None

    async def ended_soon(self, seconds: float) -> None:
        """Wait a little for all to end; those that nobody reads do not notice that they have ended."""
        with suppress(EngineError):
            await self.all_ended(seconds)
