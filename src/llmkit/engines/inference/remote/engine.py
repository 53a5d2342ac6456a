"""An engine whose completions are drawn by servers."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode
from llmkit.engines.inference.merging import collect
from llmkit.engines.inference.remote.asking import Asking
from llmkit.engines.inference.remote.contract import Dialect, Fleet, WeightSync
from llmkit.engines.inference.remote.deadlines import Deadlines
from llmkit.engines.inference.remote.link import HttpClient, HttpLink
from llmkit.engines.inference.remote.members import Member, Members
from llmkit.engines.inference.remote.probing import first_facts
from llmkit.engines.inference.remote.requests import Requests
from llmkit.engines.inference.remote.updating import update_weights
from llmkit.engines.inference.remote.watching import Watch
from llmkit.errors import EngineError, RequestError
from llmkit.types import Completion, SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GRACE_SECONDS = 5.0
"""For servers to hand over what they had drawn of requests that they were told to end."""


class RemoteEngine:
    """Draws with the servers of a fleet; see `ServingEngine`.

    It belongs to the event loop of its first request. The servers are its own: what others send them is neither
    counted nor held back while weights change.
    """

    def __init__(
        self,
        fleet: Fleet,
        dialect: Dialect,
        *,
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        sync: WeightSync | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """Look for the servers.

        Args:
            fleet: whom to ask; closed with the engine.
            dialect: how.
            tokenizer: for text and stop strings.
            sync: brings them the policy's weights; closed with the engine. None for servers whose weights stay.
            deadlines: None for those that `Deadlines` has.
        Raises:
            EngineError: no server answers.
        """
        self._deadlines = deadlines or Deadlines()
        facts = first_facts(fleet, dialect, self._deadlines)
        lengths = [one.context_length for one in facts if one.context_length is not None]
        self._context_length = min(lengths, default=None)
        self._served_adapters = set.intersection(*(set(one.adapters) for one in facts))
        self._fleet = fleet
        self._dialect = dialect
        self._has_text = tokenizer is not None
        self._sync = sync
        self._client = HttpClient(self._deadlines)
        links = [HttpLink(server, self._client) for server in fleet.servers]
        self._members = Members(fleet, links, version=0)
        self._watch = Watch(self._members, dialect, sync, self._deadlines.health_seconds)
        self._asking = Asking(self._members, dialect, self._deadlines)
        self._requests = Requests(self._asking, tokenizer)
        self._mode: PauseMode | None = None
        self._is_closed = False

    @property
    def version(self) -> int:
        """Of the weights that all servers draw with."""
        return self._members.version

    @property
    def context_length(self) -> int | None:
        """The shortest of all servers."""
        return self._context_length

    @property
    def fleet(self) -> Fleet:
        """The servers."""
        return self._fleet

    @property
    def policy_adapter(self) -> str | None:
        """The adapter that requests ask for which name none; None where that is the model itself."""
        return None if self._sync is None else self._sync.adapter

    def current_starts(self) -> Sequence[int | None]:
        """For each server which of its starts has the present weights; None for one that has none of them."""
        version = self.version
        return [member.num_starts if member.version == version else None for member in self._members.all]

    @property
    def adapters(self) -> Sequence[str]:
        """Those that all servers had from the start, and those that were loaded since."""
        return tuple(sorted({*self._served_adapters, *self._watch.adapters}))

    async def generate(self, prompt_ids: Sequence[int], sampling: SamplingParams) -> Completion:
        """One completion; when a server fails meanwhile, another one begins anew, with the same seed."""
        request = GenerationRequest(prompt_ids, sampling)
        seconds = self._deadlines.request_seconds
        try:
            async with asyncio.timeout(seconds), aclosing(self._draw(request, whole=True)) as deltas:
                return await collect(deltas)
        except TimeoutError:
            raise EngineError(f"drawing: no completion within {seconds:g} seconds (request_seconds)") from None

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[Delta]:
        """See `ServingEngine.stream`; a server that fails is replaced by another one up to the first token."""
        async with aclosing(self._draw(request, whole=False)) as deltas:
            async for delta in deltas:
                yield delta

    async def pause(self, mode: PauseMode = "abort") -> None:
        """See `ServingEngine.pause`. Raises RequestError where the servers cannot hold what runs (`keep`)."""
        self._watch.start()
        self._requests.gate.close()
        self._mode, self._members.is_held = mode, True
        if mode == "wait":
            await self._requests.all_ended(self._deadlines.request_seconds)
        elif mode == "abort":
            self._requests.end()
            if await self._pause_servers("abort"):
                await self._requests.ended_soon(GRACE_SECONDS)
            self._asking.cut(EngineError("the engine was paused"))
            await self._requests.ended_soon(GRACE_SECONDS)
        elif not await self._pause_servers("keep"):
            await self.resume()
            raise RequestError(
                f"these {self._dialect.name} servers have no pause with mode=keep; abort and wait they can"
            )

    async def resume(self) -> None:
        """Go on after `pause`."""
        self._mode, self._members.is_held = None, False
        for member in self._members.all:
            if member.is_paused:
                await self._resume_server(member)
        self._requests.gate.open()

    async def load_weights(self, version: int) -> None:
        """Bring the policy's weights to all servers, when the requests that are under way have ended.

        Raises:
            EngineError: nothing could bring them, requests do not end in time, or it failed: then nothing is drawn
                until it succeeds.
        """
        if self._sync is None:
            if version == self.version == 0:
                return
            raise EngineError(
                f"these {self._dialect.name} servers keep the weights that they were started with, and nothing brings "
                f"them version {version}: choose an engine whose servers llmkit starts"
            )
        if self._mode == "keep" and self._requests.gate.num_inside:
            raise EngineError(
                "sending weights: the pause with mode=keep holds requests, and their tokens before and after it could "
                "not be told apart; pause with abort or wait"
            )
        self._watch.start()
        self._requests.gate.close()
        try:
            # No request is inside while the weights change, so each is drawn with one version from end to end.
            await self._requests.all_ended(self._deadlines.request_seconds)
            self._requests.refusal = EngineError(f"the weights of the servers are unknown: version {version} failed")
            await update_weights(self._members, self._watch, self._dialect, self._sync, version)
            self._requests.refusal = None
        finally:
            if self._mode is None:
                self._requests.gate.open()

    async def close(self) -> None:
        """End what runs, and stop the servers that llmkit started."""
        if self._is_closed:
            return
        self._is_closed = True
        self._requests.refusal = EngineError("the engine is closed")
        self._requests.end()
        self._asking.cut(self._requests.refusal)
        self._requests.gate.open()
        await self._watch.stop()
        await self._requests.ended_soon(GRACE_SECONDS)
        await self._client.close()
        if self._sync is not None:
            await asyncio.to_thread(self._sync.close)
        await asyncio.to_thread(self._fleet.close)

    def stats(self) -> EngineStats:
        """Counts of this engine's own requests; cache and preemptions as the servers last told."""
        members, requests = self._members.all, self._requests
        return EngineStats(
            num_running=sum(member.num_running for member in members),
            num_waiting=requests.gate.num_waiting,
            cache_use=max(member.stats.cache_use for member in members),
            num_prompt_tokens=requests.num_prompt_tokens,
            num_cached_tokens=requests.num_cached_tokens,
            num_generated_tokens=requests.num_generated_tokens,
            num_preemptions=sum(member.stats.num_preemptions for member in members),
        )

    async def load_adapter(self, name: str, path: Path) -> None:
        """See `ServingEngine.load_adapter`; every server reads the directory itself."""
        if name in self.adapters:
            raise RequestError(f"there is an adapter named '{name}'; unload it first")
        self._watch.start()
        await self._watch.load_adapter(name, path.resolve())

    async def unload_adapter(self, name: str) -> None:
        """See `ServingEngine.unload_adapter`; one that servers had from the start stays."""
        if name not in self._watch.adapters:
            raise RequestError(
                f"no adapter named '{name}' was loaded; loaded: {', '.join(self._watch.adapters) or 'none'}"
            )
        await self._watch.unload_adapter(name)

    def _draw(self, request: GenerationRequest, *, whole: bool) -> AsyncGenerator[Delta]:
        self._check(request)
        self._dialect.check(request)
        self._watch.start()
        if request.adapter is None and self._sync is not None and self._sync.adapter is not None:
            request = replace(request, adapter=self._sync.adapter)
        return self._requests.draw(request, whole=whole)

    def _check(self, request: GenerationRequest) -> None:
        if self._is_closed:
            raise EngineError("the engine is closed")
        if not request.prompt_ids:
            raise RequestError("the prompt is empty; give at least one token")
        if request.adapter is not None and request.adapter not in self.adapters:
            raise RequestError(f"no adapter named '{request.adapter}'; loaded: {', '.join(self.adapters) or 'none'}")
        if request.sampling.stop and not self._has_text:
            raise RequestError("stop strings need a tokenizer, and this engine was started without one")
        size, wanted, most = len(request.prompt_ids), request.sampling.max_new_tokens, self._context_length
        if most is not None and size + wanted > most:
            raise RequestError(
                f"a prompt of {size} tokens and max_new_tokens={wanted} do not fit the servers' context of {most}"
            )

    async def _pause_servers(self, mode: PauseMode) -> bool:
        """Whether all servers that are asked have paused; one that fails is not asked any more."""
        return all(await asyncio.gather(*(self._pause_server(member, mode) for member in self._members.ready)))

    async def _pause_server(self, member: Member, mode: PauseMode) -> bool:
        try:
            await self._dialect.pause(member.link, mode)
        except RequestError:
            return False  # it has no such mode
        except EngineError as error:
            self._members.lose(member, error)
        member.is_paused = True
        return True

    async def _resume_server(self, member: Member) -> None:
        try:
            await self._dialect.resume(member.link)
        except EngineError as error:
            self._members.lose(member, error)  # it goes on when it is found well
        else:
            member.is_paused = False
