"""How SGLang's server is spoken to: its own `/generate`. Facts are of version 0.5.23."""

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llmkit.engines.inference.contract import Delta, EngineStats, GenerationRequest, PauseMode, TokenScores
from llmkit.engines.inference.remote.completions import stop_reason_of
from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.engines.inference.remote.models import model_cards
from llmkit.engines.inference.remote.refusals import (
    ServedLogprobs,
    check_logprobs,
    check_ranges,
    check_unknown,
    is_edited,
    is_truncated,
    refuse,
)
from llmkit.engines.inference.remote.seeds import folded
from llmkit.errors import EngineError, RequestError
from llmkit.types import SamplingParams, Structure

logger = logging.getLogger("llmkit.engines")

PATH = "/generate"
PHASE = "drawing"
Scored = tuple[float | None, int, str | None]
"""Log-probability, token id, and its text, which is not asked for."""


class Finish(Struct):
    """Why a completion ended; `matched` is the stop token or string."""

    type: str
    matched: int | str | None = None


class Span(Struct):
    """Tokens `[start, end)` that one version of the weights drew."""

    version: str
    start: int
    end: int


class Meta(Struct):
    """What there is to know of a completion; what is not always needed is read when it is."""

    completion_tokens: int = 0
    finish_reason: Finish | None = None
    output_token_logprobs: list[Scored] = []
    output_top_logprobs: Raw = Raw(b"null")
    input_token_logprobs: list[Scored] | None = None
    input_top_logprobs: Raw = Raw(b"null")
    weight_version: str = ""
    weight_versions: list[Span] | None = None
    cached_tokens: int | None = None


class Output(Struct):
    """One completion of a batch, so far."""

    meta_info: Meta
    index: int = 0


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

    def __init__(self, *, repeats_seeds: bool = False) -> None:
        """Args:
        repeats_seeds: whether the server was started with --enable-deterministic-inference; without it, it takes a
            seed and draws with other random numbers.
        """
        self._repeats_seeds = repeats_seeds
        self._warned: set[str] = set()

    @property
    def name(self) -> str:
        """For messages."""
        return "SGLang"

    def check(self, request: GenerationRequest) -> None:
        """See `Dialect.check`."""
        sampling = request.sampling
        check_unknown(self.name, sampling, ("banned_token_ids", "allowed_token_ids"))
        limits = {"presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0), "repetition_penalty": (1e-6, 2.0)}
        check_ranges(self.name, sampling, limits)
        if sampling.repetition_penalty != 1 and (sampling.presence_penalty or sampling.frequency_penalty):
            raise refuse(
                self.name, "repetition_penalty", sampling.repetition_penalty, "applies it after the other penalties"
            )
        if sampling.structure is not None and sampling.min_new_tokens:
            raise refuse(self.name, "min_new_tokens", sampling.min_new_tokens, "cannot go on after a structure's end")
        if request.priority:
            raise refuse(self.name, "priority", request.priority, "orders requests by it only where that is set up")
        if request.cache_salt:
            raise refuse(self.name, "cache_salt", request.cache_salt, "shares its cache among all requests")
        check_logprobs(self.name, sampling, _served(self.name, sampling), "sample without what changes them")
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
        body = _body(request)
        if whole:
            answers: list[Output] = await link.call(
                PATH, {**body, "stream": False}, phase=PHASE, timeout_seconds=timeout_seconds, kind=list[Output]
            )
            for index, answer in enumerate(answers):
                yield _delta(link, request, answer, index, 0, version)
            return
        known = [0] * request.num_completions
        async with aclosing(link.events(PATH, {**body, "stream": True}, phase=PHASE, kind=Output)) as events:
            async for event in events:
                delta = _delta(link, request, event, event.index, known[event.index], version)
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
    """For a server that somebody else has started; which log-probabilities it gives follows from each request."""
    return SGLangDialect()


async def _facts(link: Link) -> ServerFacts:
    """Of its one model, whatever its name: weights from files change the name to the path of the files."""
    cards = await model_cards(link)
    length = next((card.max_model_len for card in cards if card.parent is None), None)
    return ServerFacts(length, "", tuple(card.id for card in cards if card.parent is not None))


def _served(server: str, sampling: SamplingParams) -> ServedLogprobs:
    """Its log-probabilities are after masks, penalties and temperature, and before truncation."""
    if not is_edited(sampling):
        return "scaled"
    if is_truncated(sampling) and sampling.logprob_kind != "any":
        raise refuse(
            server, "logprob_kind", sampling.logprob_kind, "gives none of them for penalties or masks with truncation"
        )
    return "processed"


def _body(request: GenerationRequest) -> dict[str, Any]:
    """A batch of one prompt: each completion has a seed of its own."""
    sampling, count = request.sampling, request.num_completions
    drawn = _sampling(sampling)
    each = [
        drawn | ({} if sampling.seed is None else {"sampling_seed": folded(sampling.seed) + i}) for i in range(count)
    ]
    body: dict[str, Any] = {
        "input_ids": [list(request.prompt_ids)] * count,
        "sampling_params": each,
        "return_logprob": True,
        "logprob_start_len": 0 if sampling.prompt_logprobs else -1,
        "top_logprobs_num": sampling.num_top_logprobs,
    }
    if request.adapter is not None:
        body["lora_path"] = [request.adapter] * count
    return body


def _sampling(sampling: SamplingParams) -> dict[str, Any]:
    """Everything is said, so that the model's generation_config.json does not decide."""
    drawn: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k or -1,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repetition_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "min_new_tokens": sampling.min_new_tokens,
        "stop_token_ids": list(sampling.stop_token_ids),
        # With `ignore_eos` it looks for no stop token at all; without it, it also stops at the model's own end tokens.
        "ignore_eos": not sampling.stop_token_ids and sampling.structure is None,
        "no_stop_trim": True,
    }
    if sampling.stop:
        drawn["stop"] = list(sampling.stop)
    if sampling.logit_bias:
        drawn["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    if sampling.structure is not None:
        drawn |= _structure(sampling.structure)
    return drawn


def _structure(structure: Structure) -> dict[str, str]:
    match structure.kind:
        case "json":
            return {"json_schema": "{}"}
        case "json_schema":
            return {"json_schema": structure.text}
        case "grammar":
            return {"ebnf": structure.text}
        case "regex":
            return {"regex": structure.text}
        case "choice":
            choices = msgspec.json.decode(structure.text, type=list[str])
            return {"ebnf": _alternatives(choices)}


def _alternatives(choices: list[str]) -> str:
    """A grammar of which the choices are all there is."""
    return "root ::= " + " | ".join(msgspec.json.encode(choice).decode() for choice in choices)


def _delta(link: Link, request: GenerationRequest, output: Output, index: int, known: int, version: int) -> Delta:
    meta = output.meta_info
    # Without --incremental-streaming-output every event has all tokens so far.
    first = known if len(meta.output_token_logprobs) == meta.completion_tokens else 0
    scored = meta.output_token_logprobs[first:]
    num_top = request.sampling.num_top_logprobs
    if num_top and scored:
        places = msgspec.json.decode(meta.output_top_logprobs, type=list[list[Scored] | None])[first:]
        scores = [TokenScores(one[0], _top(place, num_top)) for one, place in zip(scored, places, strict=True)]
    else:
        scores = [TokenScores(one[0]) for one in scored]
    finish = meta.finish_reason
    reason = None if finish is None else stop_reason_of(link, finish.type)
    return Delta(
        index,
        [one[1] for one in scored],
        scores,
        _versions(meta, known, len(scored), version),
        "",
        reason,
        finish.matched if finish is not None and reason == "stop" else None,
        _prompt_scores(meta, request) if index == 0 and known == 0 and request.sampling.prompt_logprobs else None,
        meta.cached_tokens if index == 0 and known == 0 else None,
    )


def _versions(meta: Meta, start: int, count: int, version: int) -> list[int]:
    """Each token's, where the server's names are numbers; before the first update it has a name that is none."""
    if not meta.weight_versions:
        return [_number(meta.weight_version, version)] * count
    spans = [(span.end, _number(span.version, version)) for span in meta.weight_versions]
    return [
        next((number for end, number in spans if place < end), spans[-1][1]) for place in range(start, start + count)
    ]


def _number(name: str, otherwise: int) -> int:
    return int(name) if name.isdecimal() else otherwise


def _prompt_scores(meta: Meta, request: GenerationRequest) -> list[TokenScores]:
    scored = meta.input_token_logprobs or []
    num_top = request.sampling.num_top_logprobs
    tops: list[list[Scored] | None] | None = None
    if num_top:
        tops = msgspec.json.decode(meta.input_top_logprobs, type=list[list[Scored] | None] | None)
    return [TokenScores(one[0], _top(tops[place] if tops else None, num_top)) for place, one in enumerate(scored)]


def _top(place: list[Scored] | None, count: int) -> tuple[tuple[int, float], ...]:
    found = [(one[1], one[0]) for one in place or () if one[0] is not None]
    return tuple(sorted(found, key=lambda pair: -pair[1])[:count])
