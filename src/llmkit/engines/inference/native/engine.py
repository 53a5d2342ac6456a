"""The in-process engine: requests wait in a queue, go through the model in waves, and can be cancelled at any step."""

import asyncio
import secrets
from collections import deque
from collections.abc import Sequence

from llmkit.engines.inference.native.wave import Request, Wave
from llmkit.errors import EngineError, OutOfMemory
from llmkit.memory import asked_for, is_out_of_memory
from llmkit.models.policy import Policy
from llmkit.types import Completion, SamplingParams


class NativeEngine:
    """Generates with the policy's own parameters, so new weights need no transfer: `load_weights` counts a version.

    Decode steps run in a worker thread; the event loop stays free to take and cancel requests between them.
    """

    def __init__(self, policy: Policy, *, max_batch_size: int) -> None:
        self._policy = policy
        self._max_batch_size = max_batch_size
        self._version = 0
        self._waiting: deque[tuple[Request, asyncio.Future[Completion]]] = deque()
        self._running: dict[Request, asyncio.Future[Completion]] = {}
        self._worker: asyncio.Task[None] | None = None
        self._open_gate = asyncio.Event()
        self._open_gate.set()
        self._closed = False

    @property
    def version(self) -> int:
        """Version of the weights that the next token is drawn with."""
        return self._version

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """Sample one completion; cancelling the awaiting task ends the request at the next step."""
        if self._closed:
            raise EngineError("the engine is closed")
        self._check_fit(prompt_ids, sampling)
        request = Request(list(prompt_ids), sampling, _seed(sampling))
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        try:
            return await future
        finally:
            if request.stop_reason is None:
                request.stop_reason = "cancelled"

    async def pause(self) -> None:
        """End running requests with what they have and hold new ones until `resume`."""
        self._open_gate.clear()
        for request in self._running:
            if request.stop_reason is None:
                request.stop_reason = "cancelled"
        while self._running:
            await asyncio.sleep(0)

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._open_gate.set()

    async def load_weights(self, version: int) -> None:
        """The parameters are shared: tokens drawn from the next step on carry `version`."""
        self._version = version

    async def close(self) -> None:
        """End running requests as cancelled, refuse waiting ones, stop the worker."""
        self._closed = True
        await self.pause()
        while self._waiting:
            _, future = self._waiting.popleft()
            if not future.done():
                future.set_exception(EngineError("the engine was closed before this request began"))
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    def _check_fit(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> None:
        limit = self._policy.context_length
        if not prompt_ids:
            raise EngineError("the prompt is empty; give at least one token")
        if len(prompt_ids) + sampling.max_new_tokens > limit:
            raise EngineError(
                f"a prompt of {len(prompt_ids)} tokens and max_new_tokens={sampling.max_new_tokens} do not fit the "
                f"model's context of {limit} tokens; shorten the prompt or lower max_new_tokens"
            )

    async def _work(self) -> None:
        """Serve waves until nothing waits."""
        while self._waiting:
            await self._open_gate.wait()
            self._admit()
            if not self._running:
                continue
            wave = Wave(self._policy, list(self._running))
            try:
                while self._running:
                    await asyncio.to_thread(wave.step, self._version)
                    self._deliver()
            except Exception as error:  # noqa: BLE001 - whatever the model raised belongs to the requests in the wave
                self._fail(error)

    def _admit(self) -> None:
        while self._waiting and len(self._running) < self._max_batch_size:
            request, future = self._waiting.popleft()
            if request.stop_reason is None and not future.done():
                self._running[request] = future

    def _deliver(self) -> None:
        for request in [request for request in self._running if request.stop_reason is not None]:
            future = self._running.pop(request)
            if not future.done():
                future.set_result(request.completion())

    def _fail(self, error: Exception) -> None:
        failure: Exception = EngineError(f"generation failed: {type(error).__name__}: {error}")
        if is_out_of_memory(error):
            what = f"the generation of {len(self._running):,} completions side by side, with their KV cache"
            failure = OutOfMemory("generation", f"{what}{asked_for(error)}")
        for future in self._running.values():
            if not future.done():
                future.set_exception(failure)
        self._running.clear()


def _seed(sampling: SamplingParams) -> int:
    return sampling.seed if sampling.seed is not None else secrets.randbits(64)
