"""How llmkit's own server is spoken to: `POST /generate`, which has everything that an engine has."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

from msgspec import Struct

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode, TokenScores
from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.engines.inference.remote.models import ask_models
from llmkit.engines.inference.remote.prometheus import read_stats
from llmkit.engines.inference.remote.seeds import folded
from llmkit.errors import RequestError
from llmkit.types import SamplingParams, StopReason, Structure

PATH = "/generate"
PHASE = "drawing"
PLAIN = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "min_new_tokens",
    "num_top_logprobs",
    "prompt_logprobs",
)
"""Parameters that are sent as they are; the server's own names are the same."""
METRICS = {
    "num_running": "llmkit_requests_running",
    "num_waiting": "llmkit_requests_waiting",
    "cache_use": "llmkit_kv_cache_use",
    "num_prompt_tokens": "llmkit_prompt_tokens_total",
    "num_cached_tokens": "llmkit_cached_tokens_total",
    "num_generated_tokens": "llmkit_generation_tokens_total",
    "num_preemptions": "llmkit_preemptions_total",
}
"""What `/metrics` calls the fields of `EngineStats`."""


class Generated(Struct):
    """One completion, or what is new of it."""

    index: int
    token_ids: list[int]
    logprobs: list[float | None]
    versions: list[int]
    stop_reason: StopReason | None
    stop: str | int | None = None
    top_logprobs: list[tuple[tuple[int, float], ...]] | None = None


class Answer(Struct):
    """An answer, or an event."""

    completions: list[Generated]
    num_cached_tokens: int = 0
    prompt_logprobs: list[float | None] | None = None


class Version(Struct):
    """The answer of /version."""

    version: str
    engine: str
    weights_version: int


class LLMKitDialect:
    """Token ids in and out, with the versions that the server itself stamps."""

    @property
    def name(self) -> str:
        """For messages."""
        return "llmkit"

    def check(self, request: GenerationRequest) -> None:
        """See `Dialect.check`; the server itself refuses what its engine does not have."""

    async def facts(self, link: Link) -> ServerFacts:
        """See `Dialect.facts`."""
        # `/ready` would say no while it drains, which is what it says to load balancers such as this one.
        await link.call("/ready", phase="asking how it is", method="GET")
        found: Version = await link.call("/version", phase="asking its version", method="GET", kind=Version)
        return await ask_models(link, found.version)

    async def stream(
        self, link: Link, request: GenerationRequest, version: int, *, whole: bool, timeout_seconds: float
    ) -> AsyncGenerator[Delta]:
        """See `Dialect.stream`."""
        body = {
            "prompt_ids": list(request.prompt_ids),
            "sampling": _sampling(request.sampling),
            "n": request.num_completions,
            "adapter": request.adapter,
            "priority": request.priority,
            "cache_salt": request.cache_salt,
            "stream": not whole,
        }
        if request.timeout_seconds is not None:
            body["timeout_seconds"] = request.timeout_seconds
        if whole:
            answer: Answer = await link.call(PATH, body, phase=PHASE, timeout_seconds=timeout_seconds, kind=Answer)
            for delta in _deltas(answer):
                yield delta
            return
        async with aclosing(link.events(PATH, body, phase=PHASE, kind=Answer)) as events:
            async for event in events:
                for delta in _deltas(event):
                    yield delta

    async def pause(self, link: Link, mode: PauseMode) -> None:
        """Refuse: its clients do not steer an llmkit server's engine."""
        raise RequestError(f"{link.server.url}: pausing: an llmkit server cannot be paused from outside")

    async def resume(self, link: Link) -> None:
        """Nothing: it was not paused."""

    async def drop_caches(self, link: Link) -> None:
        """Refuse."""
        raise RequestError(f"{link.server.url}: dropping caches: an llmkit server drops them with new weights alone")

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        """See `Dialect.load_adapter`; the server was started with server.allow_adapter_loading."""
        if replace and name in (await ask_models(link, "")).adapters:
            await self.unload_adapter(link, name)
        body = {"lora_name": name, "lora_path": str(path)}
        await link.call("/v1/load_lora_adapter", body, phase=f"loading the adapter '{name}'")

    async def unload_adapter(self, link: Link, name: str) -> None:
        """See `Dialect.unload_adapter`."""
        await link.call("/v1/unload_lora_adapter", {"lora_name": name}, phase=f"unloading the adapter '{name}'")

    async def stats(self, link: Link) -> EngineStats:
        """See `Dialect.stats`."""
        return await read_stats(link, METRICS)


def _deltas(answer: Answer) -> list[Delta]:
    deltas = []
    for one in answer.completions:
        tops = one.top_logprobs
        scores = [
            TokenScores(logprob, () if tops is None else tops[place]) for place, logprob in enumerate(one.logprobs)
        ]
        prompt_scores = None
        if one.index == 0 and answer.prompt_logprobs is not None:
            prompt_scores = [TokenScores(logprob) for logprob in answer.prompt_logprobs]
        deltas.append(
            Delta(
                one.index,
                one.token_ids,
                scores,
                one.versions,
                "",
                one.stop_reason,
                one.stop,
                prompt_scores,
                answer.num_cached_tokens if one.index == 0 else None,
            )
        )
    return deltas


def _sampling(sampling: SamplingParams) -> dict[str, Any]:
    body: dict[str, Any] = {name: getattr(sampling, name) for name in PLAIN}
    body["stop_token_ids"] = list(sampling.stop_token_ids)
    body["stop"] = list(sampling.stop)
    body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    body["banned_token_ids"] = list(sampling.banned_token_ids)
    body["logprob_kind"] = "scaled" if sampling.logprob_kind == "any" else sampling.logprob_kind
    if sampling.allowed_token_ids is not None:
        body["allowed_token_ids"] = list(sampling.allowed_token_ids)
    if sampling.seed is not None:
        body["seed"] = folded(sampling.seed)
    if sampling.structure is not None:
        body["structure"] = _structure(sampling.structure)
    return body


def _structure(structure: Structure) -> dict[str, Any]:
    """In the words of `structured_outputs`."""
    match structure.kind:
        case "json":
            return {"json": {}}  # a schema that everything fits
        case "json_schema":
            return {"json": structure.text}
        case "choice":
            return {"choice": json.loads(structure.text)}
        case kind:
            return {kind: structure.text}
