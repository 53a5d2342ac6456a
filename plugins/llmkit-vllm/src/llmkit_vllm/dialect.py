"""How vLLM's server is spoken to. Facts are of version 0.32."""

import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode
from llmkit.engines.inference.remote.completions import completion_deltas
from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.engines.inference.remote.models import ask_models
from llmkit.engines.inference.remote.prometheus import read_stats
from llmkit.engines.inference.remote.refusals import (
    ServedLogprobs,
    check_logprobs,
    check_ranges,
    check_unknown,
    refuse,
)
from llmkit.engines.inference.remote.seeds import folded
from llmkit.errors import EngineError
from llmkit.types import Structure

LEAST_TEMPERATURE = 0.01
"""Below it, and above 0, vLLM draws with this one instead."""
STREAMS_PER_TOKEN, MOST_TOGETHER = 8, 8
"""With so many streams open, an event holds one token more, up to a most: events cost the server more than tokens do.
The first token of a completion comes at once all the same."""
MOST_BIAS = 100.0
"""Larger ones are cut to it."""
METRICS = {
    "num_running": "vllm:num_requests_running",
    "num_waiting": "vllm:num_requests_waiting",
    "cache_use": "vllm:kv_cache_usage_perc",
    "num_prompt_tokens": "vllm:prompt_tokens_total",
    "num_cached_tokens": "vllm:prefix_cache_hits_total",
    "num_generated_tokens": "vllm:generation_tokens_total",
    "num_preemptions": "vllm:num_preemptions_total",
}
"""What `/metrics` calls the fields of `EngineStats`."""

WAYS_OUT = {
    "raw": "start it with engine.logprobs=processed (--logprobs-mode processed_logprobs), or sample at temperature 1",
    "processed": "start it with engine.logprobs=raw (--logprobs-mode raw_logprobs)",
}
"""Where a server gives these log-probabilities, and others are asked for."""


class VLLMDialect:
    """Token ids over `/v1/completions`; pauses and caches over the routes of VLLM_SERVER_DEV_MODE."""

    def __init__(self, logprobs: ServedLogprobs = "raw") -> None:
        """Args:
        logprobs: what the server gives: `raw` with its default --logprobs-mode, `processed` with processed_logprobs.
        """
        self._logprobs: ServedLogprobs = logprobs

    @property
    def name(self) -> str:
        """For messages."""
        return "vLLM"

    def check(self, request: GenerationRequest) -> None:
        """See `Dialect.check`."""
        sampling = request.sampling
        check_unknown(self.name, sampling, ("banned_token_ids",))
        limits = {"presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0), "temperature": (0.0, 2.0)}
        check_ranges(self.name, sampling, limits)
        if 0 < sampling.temperature < LEAST_TEMPERATURE:
            raise refuse(self.name, "temperature", sampling.temperature, f"would draw with {LEAST_TEMPERATURE}; give 0")
        for token, bias in sampling.logit_bias:
            if not abs(bias) <= MOST_BIAS:
                raise refuse(self.name, "logit_bias", (token, bias), f"takes biases from -{MOST_BIAS} to {MOST_BIAS}")
        if sampling.logit_bias and sampling.repetition_penalty != 1:
            raise refuse(self.name, "logit_bias", sampling.logit_bias, "adds it before it penalises repetition")
        if sampling.min_p > 0 and sampling.top_p < 1 and sampling.temperature > 0:
            raise refuse(self.name, "min_p", sampling.min_p, "applies it before top_p; give one of them")
        if sampling.structure is not None and sampling.min_new_tokens:
            raise refuse(self.name, "min_new_tokens", sampling.min_new_tokens, "cannot go on after a structure's end")
        check_logprobs(self.name, sampling, self._logprobs, WAYS_OUT["raw" if self._logprobs == "raw" else "processed"])

    async def facts(self, link: Link) -> ServerFacts:
        """See `Dialect.facts`."""
        await link.call("/health", phase="asking how it is", method="GET")
        program = await link.call("/version", phase="asking its version", method="GET")
        return await ask_models(link, str(program.get("version", "")) if isinstance(program, dict) else "")

    def stream(
        self, link: Link, request: GenerationRequest, version: int, *, whole: bool, timeout_seconds: float
    ) -> AsyncGenerator[Delta]:
        """See `Dialect.stream`; vLLM's completions carry no version."""
        body = _body(link, request)
        return completion_deltas(link, body, request, version, whole=whole, timeout_seconds=timeout_seconds)

    async def pause(self, link: Link, mode: PauseMode) -> None:
        """See `Dialect.pause`; it has all modes."""
        await link.call("/pause", phase="pausing", params={"mode": mode})

    async def resume(self, link: Link) -> None:
        """See `Dialect.resume`."""
        await link.call("/resume", phase="resuming")

    async def drop_caches(self, link: Link) -> None:
        """See `Dialect.drop_caches`."""
        answer = await link.call("/reset_prefix_cache", phase="dropping the prefix cache")
        if not (isinstance(answer, dict) and answer.get("success")):
            what = f"it could not ({answer}); requests hold a part of the cache"
            raise EngineError(f"{link.server.url}: dropping the prefix cache: {what}")

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        """See `Dialect.load_adapter`; it takes --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING."""
        body = {"lora_name": name, "lora_path": str(path), "load_inplace": replace}
        await link.call("/v1/load_lora_adapter", body, phase=f"loading the adapter '{name}'")

    async def unload_adapter(self, link: Link, name: str) -> None:
        """See `Dialect.unload_adapter`."""
        await link.call("/v1/unload_lora_adapter", {"lora_name": name}, phase=f"unloading the adapter '{name}'")

    async def stats(self, link: Link) -> EngineStats:
        """See `Dialect.stats`."""
        return await read_stats(link, METRICS)


def open_dialect(logprobs: ServedLogprobs) -> VLLMDialect:
    """For a server that somebody else has started, and that gives these log-probabilities."""
    return VLLMDialect(logprobs)


def _body(link: Link, request: GenerationRequest) -> dict[str, Any]:
    """Everything is said, so that neither the model's generation_config.json nor the server's defaults decide."""
    sampling, count = request.sampling, request.num_completions
    prompt = list(request.prompt_ids)
    body: dict[str, Any] = {
        "model": request.adapter or link.server.model,
        "prompt": prompt,
        "n": count,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "min_tokens": sampling.min_new_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        # A structure ends with the model's end token; what else ends a completion is in the request.
        "ignore_eos": sampling.structure is None,
        "return_token_ids": True,
        "stream_interval": min(MOST_TOGETHER, 1 + link.num_streams // STREAMS_PER_TOKEN),
    }
    if sampling.wants_logprobs:
        body |= {"logprobs": sampling.num_top_logprobs, "return_tokens_as_token_ids": True}
    if count > 1 and sampling.temperature == 0:
        # It refuses several greedy completions of one prompt; of several equal prompts it does not.
        body |= {"n": 1, "prompt": [prompt] * count}
    if sampling.seed is not None:
        body["seed"] = folded(sampling.seed)
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.allowed_token_ids is not None:
        body["allowed_token_ids"] = sorted({*sampling.allowed_token_ids, *sampling.stop_token_ids})
    if sampling.structure is not None:
        body["structured_outputs"] = _structure(sampling.structure)
    if sampling.prompt_logprobs:
        body["prompt_logprobs"] = sampling.num_top_logprobs
    if request.cache_salt:
        body["cache_salt"] = request.cache_salt
    if request.priority:
        body["priority"] = request.priority
    return body


def _structure(structure: Structure) -> dict[str, Any]:
    match structure.kind:
        case "json":
            return {"json": {}}
        case "json_schema":
            return {"json": json.loads(structure.text)}
        case "choice":
            return {"choice": json.loads(structure.text)}
        case kind:
            return {kind: structure.text}
