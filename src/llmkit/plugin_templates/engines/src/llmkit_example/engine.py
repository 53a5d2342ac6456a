"""The engine itself: the place to import what is heavy."""

import asyncio
import math
from collections.abc import Sequence
from random import Random

from llmkit.errors import EngineError
from llmkit.types import Completion, SamplingParams, StopReason


class Engine:
    """Serves requests side by side; each yields to the others after every token."""

    def __init__(self, context_length: int) -> None:
        self._context_length = context_length
        self._version = 0
        self._num_pauses = 0
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._closed = False

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn with."""
        return self._version

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """Sample one completion."""
        self._check(prompt_ids, sampling)
        await self._open_gate.wait()
        if self._closed:
            raise EngineError("the engine was closed before this request began")
        random = Random(sampling.seed)
        num_pauses = self._num_pauses
        completion = Completion([], [], [], "length")
        for _ in range(sampling.max_new_tokens):
            await asyncio.sleep(0)
            if self._closed or self._num_pauses > num_pauses:
                return _ended(completion, "cancelled")
            token = random.choice(prompt_ids)
            completion.token_ids.append(token)
            completion.logprobs.append(math.log(prompt_ids.count(token) / len(prompt_ids)))
            completion.versions.append(self._version)
            if token in sampling.stop_token_ids:
                return _ended(completion, "stop")
        return completion

    async def pause(self) -> None:
        """End running requests with what they have and hold new ones."""
        self._num_pauses += 1
        self._open_gate.clear()

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._open_gate.set()

    async def load_weights(self, version: int) -> None:
        """Tokens drawn from now on carry `version`."""
        self._version = version

    async def close(self) -> None:
        """End running requests; refuse new ones."""
        self._closed = True
        self._open_gate.set()

    def _check(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> None:
        if self._closed:
            raise EngineError("the engine is closed")
        if not prompt_ids:
            raise EngineError("the prompt is empty; give at least one token")
        if len(prompt_ids) + sampling.max_new_tokens > self._context_length:
            raise EngineError(
                f"a prompt of {len(prompt_ids)} tokens and max_new_tokens={sampling.max_new_tokens} do not fit "
                f"engine.context_length={self._context_length}; shorten the prompt or raise it"
            )


def _ended(completion: Completion, reason: StopReason) -> Completion:
    return Completion(completion.token_ids, completion.logprobs, completion.versions, reason)
