"""How SGLang's server is spoken to: its own `/generate`. Facts are of version 0.5.23."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from msgspec import Struct

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode
from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.engines.inference.remote.models import model_cards
from llmkit.engines.inference.remote.refusals import ServedLogprobs
from llmkit.errors import EngineError, RequestError
from llmkit_sglang.answers import Output, delta_of
from llmkit_sglang.requests import NAME, body_of, check_request

logger = logging.getLogger("llmkit.engines")

PATH = "/generate"
PHASE = "drawing"


class Load(Struct):
    """One scheduler's, of `/v1/loads`."""

    num_running_reqs: int = 0
    num_waiting_reqs: int = 0
    token_usage: float = 0.0


class Loads(Struct):
    """The answer of `/v1/loads`."""

    loads: list[Load]


class SGLangDialect:
    """Token ids in and out, with the versions that the server itself stamps."""

    def __init__(self, logprobs: ServedLogprobs = "processed", *, repeats_seeds: bool = False) -> None:
        """Args:
        logprobs: what the server gives: `raw` when it was started with SGLANG_RETURN_ORIGINAL_LOGPROB=1.
        repeats_seeds: whether the server was started with --enable-deterministic-inference; without it, it takes a
            seed and draws with other random numbers.
        """
        self._is_raw = logprobs == "raw"
        self._repeats_seeds = repeats_seeds
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        """For messages."""
        return NAME

    def check(self, request: GenerationRequest) -> None:
        """See `Dialect.check`."""
        check_request(request, is_raw=self._is_raw)
        sampling = request.sampling
        if sampling.seed is not None and not self._repeats_seeds:
            self._warn("seed has no effect: SGLang repeats draws only with --enable-deterministic-inference")
        if sampling.top_k and sampling.top_p < 1 and sampling.temperature > 0:
            self._warn("top_p with top_k: SGLang takes the share of all tokens, not of those that top_k leaves")

    def _warn(self, text: str) -> None:
        """Once: these differences are in every request of many models, and too small to serve none of them."""
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text)

    async def facts(self, link: Link) -> ServerFacts:
        """See `Dialect.facts`."""
        await link.call("/ready", phase="asking how it is", method="GET")
        return await _facts(link)

    async def stream(
        self, link: Link, request: GenerationRequest, version: int, *, whole: bool, timeout_seconds: float
    ) -> AsyncGenerator[Delta]:
        """See `Dialect.stream`."""
        body = body_of(request)
        if whole:
            answers: list[Output] = await link.call(
                PATH, {**body, "stream": False}, phase=PHASE, timeout_seconds=timeout_seconds, kind=list[Output]
            )
            for index, answer in enumerate(answers):
                yield delta_of(link, request, answer, index, 0, version)
            return
        known = [0] * request.num_completions
        async with aclosing(link.events(PATH, {**body, "stream": True}, phase=PHASE, kind=Output)) as events:
            async for event in events:
                delta = delta_of(link, request, event, event.index, known[event.index], version)
                known[event.index] += len(delta.token_ids)
                yield delta

    async def pause(self, link: Link, mode: PauseMode) -> None:
        """See `Dialect.pause`; waiting for what runs is left to the engine."""
        if mode == "wait":
            raise RequestError(f"{link.server.url}: pausing: SGLang has no mode that waits for what runs")
        await link.call("/pause_generation", {"mode": "abort" if mode == "abort" else "in_place"}, phase="pausing")

    async def resume(self, link: Link) -> None:
        """See `Dialect.resume`."""
        await link.call("/continue_generation", {}, phase="resuming")

    async def drop_caches(self, link: Link) -> None:
        """See `Dialect.drop_caches`."""
        try:
            await link.call("/flush_cache", {}, phase="dropping the prefix cache")
        except RequestError as error:
            raise EngineError(f"{error}; requests hold a part of the cache") from error

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        """See `Dialect.load_adapter`; the server was started with --enable-lora."""
        if replace and name in (await _facts(link)).adapters:
            await self.unload_adapter(link, name)
        phase = f"loading the adapter '{name}'"
        await link.call("/load_lora_adapter", {"lora_name": name, "lora_path": str(path)}, phase=phase)

    async def unload_adapter(self, link: Link, name: str) -> None:
        """See `Dialect.unload_adapter`."""
        await link.call("/unload_lora_adapter", {"lora_name": name}, phase=f"unloading the adapter '{name}'")

    async def stats(self, link: Link) -> EngineStats:
        """See `Dialect.stats`; what it counts since its start is not told without --enable-metrics."""
        params = {"include": "core"}
        found: Loads = await link.call("/v1/loads", phase="reading its load", method="GET", params=params, kind=Loads)
        return EngineStats(
            num_running=sum(one.num_running_reqs for one in found.loads),
            num_waiting=sum(one.num_waiting_reqs for one in found.loads),
            cache_use=max((one.token_usage for one in found.loads), default=0.0),
        )


def open_dialect(logprobs: ServedLogprobs) -> SGLangDialect:
    """For a server that somebody else has started, and that gives these log-probabilities."""
    return SGLangDialect(logprobs)


async def _facts(link: Link) -> ServerFacts:
    """Of its one model, whatever its name: weights from files change the name to the path of the files."""
    cards = await model_cards(link)
    length = next((card.max_model_len for card in cards if card.parent is None), None)
    return ServerFacts(length, "", tuple(card.id for card in cards if card.parent is not None))
