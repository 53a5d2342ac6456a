"""How any server is spoken to that has OpenAI's `/v1/completions`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode
from llmkit.engines.inference.remote.completions import completion_deltas
from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.engines.inference.remote.models import ask_models
from llmkit.engines.inference.remote.refusals import (
    ServedLogprobs,
    check_logprobs,
    check_ranges,
    check_unknown,
    refuse,
)
from llmkit.engines.inference.remote.seeds import folded
from llmkit.engines.inference.remote.text_completions import text_deltas
from llmkit.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = (
    "top_k",
    "min_p",
    "repetition_penalty",
    "allowed_token_ids",
    "banned_token_ids",
    "min_new_tokens",
    "structure",
    "prompt_logprobs",
)
"""Parameters that OpenAI's API has not: a server may ignore them without a word."""


class OpenAIDialect:
    """Token ids where the server gives them (`return_token_ids`), else text.

    With text, token ids are what our own tokenizer makes of it, and there are no log-probabilities: enough for an
    answer that somebody reads, not for training.
    """

    def __init__(
        self, text_tokenizer: "PreTrainedTokenizerBase | None" = None, *, logprobs: ServedLogprobs = "raw"
    ) -> None:
        """Args:
        text_tokenizer: for a server that gives text alone; None for one that gives token ids.
        logprobs: of which distribution its log-probabilities are.
        """
        self._logprobs: ServedLogprobs = logprobs
        self._text_tokenizer = text_tokenizer

    @property
    def name(self) -> str:
        """For messages."""
        return "OpenAI-compatible"

    def check(self, request: GenerationRequest) -> None:
        """See `Dialect.check`."""
        sampling = request.sampling
        check_unknown(self.name, sampling, UNKNOWN)
        check_ranges(self.name, sampling, {"presence_penalty": (-2, 2), "frequency_penalty": (-2, 2)})
        if request.cache_salt:
            raise refuse(self.name, "cache_salt", request.cache_salt, "shares its cache among all requests")
        if request.priority:
            raise refuse(self.name, "priority", request.priority, "has one queue for all requests; leave it out")
        if self._text_tokenizer is None:
            check_logprobs(self.name, sampling, self._logprobs, "sample at temperature 1")
        elif sampling.logprob_kind != "any":
            raise refuse(
                self.name,
                "logprob_kind",
                sampling.logprob_kind,
                "answers with text alone, and the log-probabilities of its tokens are not known",
            )

    async def facts(self, link: Link) -> ServerFacts:
        """See `Dialect.facts`."""
        return await ask_models(link, "")

    async def stream(
        self, link: Link, request: GenerationRequest, version: int, *, whole: bool, timeout_seconds: float
    ) -> AsyncGenerator[Delta]:
        """See `Dialect.stream`."""
        body = _body(link, request)
        if self._text_tokenizer is not None:
            deltas = text_deltas(
                link, body, request, self._text_tokenizer, version, whole=whole, timeout_seconds=timeout_seconds
            )
        else:
            if request.sampling.wants_logprobs:
                body |= {"logprobs": request.sampling.num_top_logprobs, "return_tokens_as_token_ids": True}
            body |= {"prompt": list(request.prompt_ids), "return_token_ids": True}
            deltas = completion_deltas(link, body, request, version, whole=whole, timeout_seconds=timeout_seconds)
        async with aclosing(deltas):
            async for delta in deltas:
                yield up_to_stop_token(delta, request.sampling.stop_token_ids)

    async def pause(self, link: Link, mode: PauseMode) -> None:
        """Refuse: the API has no such thing."""
        raise RequestError(f"{link.server.url}: pausing: OpenAI's API has no pause")

    async def resume(self, link: Link) -> None:
        """Nothing: it was not paused."""

    async def drop_caches(self, link: Link) -> None:
        """Refuse."""
        raise RequestError(f"{link.server.url}: dropping caches: OpenAI's API has no way to do it")

    async def load_adapter(self, link: Link, name: str, path: Path, *, replace: bool) -> None:
        """Refuse."""
        raise RequestError(
            f"{link.server.url}: loading the adapter '{name}': OpenAI's API has no adapters; start the server with it"
        )

    async def unload_adapter(self, link: Link, name: str) -> None:
        """Refuse."""
        raise RequestError(f"{link.server.url}: unloading the adapter '{name}': OpenAI's API has no adapters")

    async def stats(self, link: Link) -> EngineStats:
        """Nothing is known."""
        return EngineStats()


def up_to_stop_token(delta: Delta, stop_token_ids: tuple[int, ...]) -> Delta:
    """A delta up to the first stop token: servers that know only their own end token draw on."""
    for place, token in enumerate(delta.token_ids):
        if token in stop_token_ids:
            count = place + 1
            ids, scores, versions = delta.token_ids[:count], delta.scores[:count], delta.versions[:count]
            return replace(delta, token_ids=ids, scores=scores, versions=versions, stop_reason="stop", stop=token)
    return delta


def _body(link: Link, request: GenerationRequest) -> dict[str, Any]:
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": request.adapter or link.server.model,
        "n": request.num_completions,
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
    }
    if sampling.seed is not None:
        body["seed"] = folded(sampling.seed)
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        body["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    return body
