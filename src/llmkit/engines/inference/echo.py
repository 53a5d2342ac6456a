"""Scripted: answers with given token ids, for tests and dry runs."""

import asyncio
from collections.abc import Sequence

from pydantic import Field

from llmkit.config.section import Section
from llmkit.engines.inference.contract import EngineContext
from llmkit.errors import EngineError
from llmkit.types import Completion, SamplingParams, StopReason


class Config(Section):
    """What it says; without a script it repeats the prompt."""

    script: tuple[tuple[int, ...], ...] = ()
    """Completions as token ids, given in turn, the first again after the last; empty repeats the prompt."""
    seconds_per_token: float = Field(0.0, ge=0)
    """Time that each token takes."""


def build(config: Config, context: EngineContext) -> "EchoEngine":
    """Make the engine; it needs no model."""
    return EchoEngine(config)


class EchoEngine:
    """Draws nothing: every token has log-probability 0."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._version = 0
        self._num_requests = 0
        self._pauses = 0
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._closed = False

    @property
    def version(self) -> int:
        """Version of the weights that it pretends to have."""
        return self._version

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """The next scripted completion, or the prompt."""
        if self._closed:
            raise EngineError("the engine is closed")
        if not prompt_ids:
            raise EngineError("the prompt is empty; give at least one token")
        script = self._config.script or (tuple(prompt_ids),)
        planned = script[self._num_requests % len(script)][: sampling.max_new_tokens]
        self._num_requests += 1
        await self._open_gate.wait()
        pauses = self._pauses
        token_ids: list[int] = []
        versions: list[int] = []
        reason: StopReason = "length" if len(planned) == sampling.max_new_tokens else "stop"
        for token in planned:
            await asyncio.sleep(self._config.seconds_per_token)
            if self._closed or self._pauses > pauses:
                reason = "cancelled"
                break
            token_ids.append(token)
            versions.append(self._version)
            if token in sampling.stop_token_ids:
                reason = "stop"
                break
        return Completion(token_ids, [0.0] * len(token_ids), versions, reason)

    async def pause(self) -> None:
        """End running requests with what they have and hold new ones."""
        self._pauses += 1
        self._open_gate.clear()

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._open_gate.set()

    async def load_weights(self, version: int) -> None:
        """Count the version."""
        self._version = version

    async def close(self) -> None:
        """End running requests; refuse new ones."""
        self._closed = True
        self._open_gate.set()
