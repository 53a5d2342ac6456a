"""The in-process engine: continuous batching over a paged cache, behind an event loop that stays free."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Tokens
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from llmkit.engines.inference.contract import (
    Delta,
    EngineStats,
    GenerationRequest,
    PauseMode,
    TokenScores,
)
from llmkit.engines.inference.native.adapter_files import LowRankAdapter, read_adapter
from llmkit.engines.inference.native.choosing import Chosen
from llmkit.engines.inference.native.delivery import Outlet, flush, resolve, settle, signal
from llmkit.engines.inference.native.loop import StepLoop
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Adapters
from llmkit.engines.inference.native.sequences import Deliver, Request, Sequence
from llmkit.engines.inference.native.terms import Terms
from llmkit.engines.inference.sampling.batch import SamplerState
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.text_stream import open_text_stream
from llmkit.errors import EngineBusyError, EngineError, RequestError
from llmkit.types import Completion, SamplingParams

UNLOADING_SECONDS = 0.02
"""How often it is looked whether an adapter's last request has ended."""


class NativeEngine:
    """Generates with the policy's own parameters, so new weights need no transfer: `load_weights` counts a version.

    Steps run in a thread of their own. What a request needs of the event loop's thread is little: its results are
    handed over once a step, and requests that arrive in one turn of the event loop reach the thread together, so that
    what shares a step does not depend on timing.
    """

    def __init__(
        self, chosen: Chosen, sampling: SamplingContext, *, context_length: int | None, terms: Terms | None = None
    ) -> None:
        """Args:
        context_length: most tokens of prompt and completion together that the model can take.
        """
        self._chosen = chosen
        self._sampling = sampling
        self._terms = terms or Terms()
        self._loop = StepLoop(chosen.runner, chosen.num_blocks, chosen.limits, chosen.device, flush)
        self._context_length = context_length
        self._arrivals = count()
        self._adapters: dict[str, int] = {}
        self._loaded: dict[str, LowRankAdapter] = {}
        self._adapter_numbers = count(1)
        self._unsent: list[Request] = []
        self._closed = False

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn with."""
        return self._loop.version

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together: what the model and the whole cache can take."""
        capacity = self._loop.num_blocks * BLOCK_SIZE
        return min(self._context_length or capacity, capacity)

    @property
    def adapters(self) -> Tokens[str]:
        """Names of the adapters that requests can ask for."""
        return tuple(self._adapters)

    def stats(self) -> EngineStats:
        """How the engine is doing now."""
        return self._loop.stats()

    async def generate(self, prompt_ids: Tokens[int], sampling: SamplingParams) -> Completion:
        """Sample one completion; cancelling the awaiting task frees what it held at the next step.

        However many wait, it is never refused: a trainer submits a whole batch at once, and has nowhere else to go.
        `max_waiting` bounds `stream`, which is for clients who can come back later.
        """
        future: asyncio.Future[Delta] = asyncio.get_running_loop().create_future()
        request = await self._request(GenerationRequest(prompt_ids, sampling), partial(resolve, future), streams=False)
        try:
            delta = await future
        finally:
            self._leave(request)
        logprobs = [score.logprob or 0.0 for score in delta.scores]
        return Completion(delta.token_ids, logprobs, delta.versions, delta.stop_reason or "cancelled")

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        """Deltas of all completions as they come."""
        waiting = self._loop.stats().num_waiting + sum(len(unsent.sequences) for unsent in self._unsent)
        if waiting and waiting + request.num_completions > self._terms.max_waiting:
            raise EngineBusyError(
                f"{waiting} completions wait already, and engine.max_waiting={self._terms.max_waiting}; try later",
                retry_after_seconds=1.0,
            )
        results: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        entered = await self._request(request, results.put_nowait, streams=True)
        left = request.num_completions
        try:
            while left:
                result = await results.get()
                if isinstance(result, Exception):
                    raise result
                left -= result.stop_reason is not None
                yield result
        finally:
            self._leave(entered)

    async def pause(self, mode: PauseMode = "abort") -> None:
        """Hold new requests until `resume`, and running ones as `mode` says; `resume` ends the wait for them too."""
        self._check_open()
        self._send()
        done, reached = signal()
        self._loop.tell(lambda: self._loop.pause(mode, reached))
        await done

    async def resume(self) -> None:
        """Go on after `pause`."""
        await self._carry_out(self._loop.resume)

    async def load_weights(self, version: int) -> None:
        """The parameters are shared: tokens drawn from the next step on carry `version`."""
        if self._closed:
            return
        await self._carry_out(partial(self._loop.load_weights, version, recomputes=self._terms.recomputes))

    async def load_adapter(self, name: str, path: Path) -> None:
        """Let requests ask for the adapter in a directory by a name."""
        self._check_open()
        if name in self._adapters:
            raise RequestError(f"there is an adapter {name!r} already; unload it first, or choose another name")
        adapter = await asyncio.to_thread(read_adapter, path)

        def load() -> None:
            adapters: Adapters | None = getattr(self._loop.runner, "adapters", None)
            objection = self._chosen.reason if adapters is None else adapters.objection(name, adapter)
            if adapters is None or objection is not None:
                adapters = self._move_adapters(objection)
            adapters.load(name, adapter)
            self._loaded[name] = adapter

        await self._carry_out(load)
        self._adapters[name] = next(self._adapter_numbers)

    def _move_adapters(self, objection: str | None) -> Adapters:
        """Go on with the runner that takes any adapter, and with those of the one before; in the engine's thread."""
        if self._chosen.with_adapters is None:
            raise RequestError(f"the {self._chosen.name} runner does not take this adapter: {objection}")
        self._loop.change_runner(self._chosen.with_adapters)
        adapters: Adapters = self._loop.runner.adapters  # type: ignore[attr-defined] - `with_adapters` has them
        for name, adapter in self._loaded.items():
            adapters.load(name, adapter)
        return adapters

    async def unload_adapter(self, name: str) -> None:
        """Forget an adapter; requests that use it end first."""
        number = self._adapters.pop(name, None)
        if number is None:
            raise RequestError(f"there is no adapter {name!r}; loaded: {', '.join(self._adapters) or 'none'}")
        self._send()
        while await self._carry_out(lambda: self._loop.num_using(number)):
            await asyncio.sleep(UNLOADING_SECONDS)
        await self._carry_out(lambda: self._loop.runner.adapters.unload(name))  # type: ignore[attr-defined]
        del self._loaded[name]

    async def close(self) -> None:
        """End running requests as cancelled, refuse waiting ones, free everything."""
        if self._closed:
            return
        self._send()
        self._closed = True
        done, reached = signal()
        self._loop.tell(lambda: self._loop.close(reached))
        await done

    async def _request(self, asked: GenerationRequest, deliver: Deliver, *, streams: bool) -> Request:
        """Check a request and let it wait for its turn."""
        self._check_open()
        self._check_fit(asked)
        loop = asyncio.get_running_loop()
        now, arrival = time.monotonic(), next(self._arrivals)
        if asked.sampling.structure is not None:
            await self._sampling.prepare(asked.sampling)
            self._check_open()
        request = Request(
            asked,
            Outlet(loop, deliver),
            streams=streams,
            rank=(self._terms.rank(asked.priority, now), arrival),
            adapter=self._adapter_number(asked.adapter),  # which may have been unloaded meanwhile
            deadline=now + asked.timeout_seconds if asked.timeout_seconds is not None else None,
        )
        request.sequences = self._sequences(request)
        if not self._unsent:
            loop.call_soon(self._send)
        self._unsent.append(request)
        return request

    def _sequences(self, request: Request) -> list[Sequence]:
        asked = request.asked
        sampling, tokenizer = asked.sampling, self._sampling.tokenizer
        prompt_ids = list(asked.prompt_ids)
        seed = sampling.seed if sampling.seed is not None else secrets.randbits(64)
        if not request.streams and not sampling.stop:
            tokenizer = None  # nobody asks for text
        return [
            Sequence(
                request,
                index,
                sampling,
                SamplerState(sampling, (seed + index) % (1 << 64), prompt_ids, self._sampling),
                open_text_stream(tokenizer, sampling),
                list(prompt_ids),
                len(prompt_ids),
                prompt_scores=[TokenScores(None)] if sampling.prompt_logprobs else [],
            )
            for index in range(asked.num_completions)
        ]

    def _send(self) -> None:
        """Hand what arrived to the engine's thread."""
        if self._unsent:
            requests, self._unsent = self._unsent, []
            self._loop.tell(lambda: self._loop.submit(requests))

    def _leave(self, request: Request) -> None:
        """Nobody waits for the request any more."""
        if request.sequences:
            self._send()
            self._loop.tell(lambda: self._loop.cancel(request))

    async def _carry_out(self, work: Callable[[], Any]) -> Any:
        """Have the engine's thread do something between two steps; returns what it returned."""
        self._check_open()
        self._send()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def command() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - it is raised where the work was asked for
                loop.call_soon_threadsafe(settle, future.set_exception, future, error)
            else:
                loop.call_soon_threadsafe(settle, future.set_result, future, result)

        self._loop.tell(command)
        return await future

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")

    def _check_fit(self, asked: GenerationRequest) -> None:
        sampling = asked.sampling
        if not len(asked.prompt_ids):
            raise RequestError("the prompt is empty; give at least one token")
        if sampling.max_new_tokens < 1 or asked.num_completions < 1:
            raise RequestError(
                f"max_new_tokens={sampling.max_new_tokens} and num_completions={asked.num_completions}: both must be "
                "at least 1"
            )
        size = self._sampling.vocab_size
        wrong = next((token for token in asked.prompt_ids if not 0 <= token < size), None)
        if wrong is not None:
            raise RequestError(f"the prompt has token {wrong}, and the model's vocabulary ends at {size - 1}")
        self._adapter_number(asked.adapter)
        tokens = len(asked.prompt_ids) + sampling.max_new_tokens
        if tokens > self.context_length:
            raise RequestError(
                f"a prompt of {len(asked.prompt_ids)} tokens and max_new_tokens={sampling.max_new_tokens} do not fit "
                f"{self._limit()}; shorten the prompt or lower max_new_tokens"
            )

    def _adapter_number(self, name: str | None) -> int:
        """0 is the model itself."""
        if name is None:
            return 0
        if name not in self._adapters:
            raise RequestError(f"no adapter {name!r}; loaded: {', '.join(self._adapters) or 'none'}")
        return self._adapters[name]

    def _limit(self) -> str:
        if self.context_length == self._context_length:
            return f"the model's context of {self._context_length} tokens"
        return (
            f"the cache, which holds {self.context_length} tokens in {self._loop.num_blocks} blocks "
            "(engine.num_blocks, engine.cache_memory_gb)"
        )
