"""A plain engine behind a server: whole completions come as one delta each."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.engines.inference.contract import (
    Delta,
    EngineStats,
    GenerationRequest,
    InferenceEngine,
    PauseMode,
    ServingEngine,
    TokenScores,
)
from llmkit.engines.inference.merging import merge
from llmkit.engines.inference.text_stream import open_text_stream
from llmkit.errors import RequestError
from llmkit.types import Completion, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNDERSTOOD = ("max_new_tokens", "temperature", "top_k", "top_p", "stop_token_ids", "seed", "stop")
"""Sampling parameters that every engine has, or that can be had from a whole completion."""


def serving_engine(
    engine: InferenceEngine, tokenizer: "PreTrainedTokenizerBase | None", context_length: int | None
) -> ServingEngine:
    """The engine itself when it can serve, else a wrapper around it.

    Args:
        engine: any engine.
        tokenizer: for text; None gives token ids alone.
        context_length: most tokens of prompt and completion together, for an engine that does not tell.
    """
    if isinstance(engine, ServingEngine):
        return engine
    return WrappedEngine(engine, tokenizer, context_length)


class WrappedEngine:
    """Streams one delta for each completion, when it has ended; loads no adapters."""

    def __init__(
        self, engine: InferenceEngine, tokenizer: "PreTrainedTokenizerBase | None", context_length: int | None
    ) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._name = type(engine).__name__
        self._num_running = self._num_prompt_tokens = self._num_generated_tokens = 0

    @property
    def version(self) -> int:
        """The engine's."""
        return self._engine.version

    @property
    def context_length(self) -> int | None:
        """As it was given."""
        return self._context_length

    @property
    def adapters(self) -> Sequence[str]:
        """None."""
        return ()

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """The engine's completion."""
        self._check(sampling)
        return await self._engine.generate(prompt_ids, sampling)

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        """One delta for each completion, as they end."""
        self._check(request.sampling)
        if request.adapter is not None:
            raise RequestError(f"no adapter named '{request.adapter}': {self._name} has none")
        self._num_prompt_tokens += len(request.prompt_ids)
        parts = [self._complete(request, index) for index in range(request.num_completions)]
        async with aclosing(merge(parts)) as deltas:
            async for delta in deltas:
                yield delta

    async def pause(self, mode: PauseMode = "abort") -> None:
        """End running requests and hold new ones.

        Raises:
            RequestError: the mode is not `abort`, the only one that a plain engine has.
        """
        if mode != "abort":
            raise RequestError(f"{self._name} cannot pause with mode={mode}; it has abort alone")
        await self._engine.pause()

    async def resume(self) -> None:
        """Go on after `pause`."""
        await self._engine.resume()

    async def load_weights(self, version: int) -> None:
        """See the engine."""
        await self._engine.load_weights(version)

    async def close(self) -> None:
        """Close the engine."""
        await self._engine.close()

    def stats(self) -> EngineStats:
        """What is known from outside: completions that were asked for count as running."""
        return EngineStats(
            num_running=self._num_running,
            num_prompt_tokens=self._num_prompt_tokens,
            num_generated_tokens=self._num_generated_tokens,
        )

    async def load_adapter(self, name: str, path: Path) -> None:
        """Refuse."""
        raise RequestError(f"{self._name} cannot load adapters ('{name}' from {path})")

    async def unload_adapter(self, name: str) -> None:
        """Refuse."""
        raise RequestError(f"no adapter named '{name}': {self._name} has none")

    def _check(self, sampling: SamplingParams) -> None:
        plain = SamplingParams()
        for name in SamplingParams.__slots__:
            value = getattr(sampling, name)
            if name in UNDERSTOOD or value == getattr(plain, name):
                continue
            if name == "logprob_kind" and (value == "any" or (value == "raw" and sampling.temperature in (0, 1))):
                continue  # the scaled ones, which plain engines give, will do, or are the same
            raise RequestError(f"{self._name} does not know {name} ({value!r}); leave it out, or use another engine")
        if sampling.stop and self._tokenizer is None:
            raise RequestError("stop strings need a tokenizer, and there is none; give stop_token_ids")

    async def _complete(self, request: GenerationRequest, index: int) -> AsyncGenerator[Delta]:
        sampling = request.sampling
        seed = None if sampling.seed is None else sampling.seed + index
        self._num_running += 1
        try:
            async with asyncio.timeout(request.timeout_seconds):
                completion = await self._engine.generate(request.prompt_ids, replace(sampling, seed=seed, stop=()))
        except TimeoutError:
            yield Delta(index, stop_reason="cancelled")
            return
        finally:
            self._num_running -= 1
        self._num_generated_tokens += len(completion.token_ids)
        yield self._delta(index, completion, sampling)

    def _delta(self, index: int, completion: Completion, sampling: SamplingParams) -> Delta:
        """The completion up to a stop string, if it has one."""
        stream, text = open_text_stream(self._tokenizer, sampling), ""
        stop: str | int | None = None
        count = 0
        while count < len(completion.token_ids) and stop is None:
            piece = stream.push([completion.token_ids[count]])
            text, stop = text + piece.text, piece.stop
            count += 1
        if stop is None:
            text += stream.finish()
            last = completion.token_ids[-1:]
            stop = last[0] if completion.stop_reason == "stop" and last and last[0] in sampling.stop_token_ids else None
        return Delta(
            index,
            completion.token_ids[:count],
            [TokenScores(logprob) for logprob in completion.logprobs[:count]],
            completion.versions[:count],
            text,
            "stop" if stop is not None else completion.stop_reason,
            stop,
        )
