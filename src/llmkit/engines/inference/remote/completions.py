"""`/v1/completions` with token ids in and out, as vLLM has it and others after it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Raw, Struct

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.engines.inference.remote.contract import Link
from llmkit.errors import EngineError
from llmkit.types import StopReason

PATH = "/v1/completions"
PHASE = "drawing"
STOP_REASONS: dict[str, StopReason] = {"stop": "stop", "length": "length", "abort": "cancelled"}


class Logprobs(Struct):
    """Of drawn tokens; what is not always needed is read when it is."""

    token_logprobs: list[float | None] = []
    top_logprobs: Raw = Raw(b"null")


class Choice(Struct):
    """One completion, or what is new of it."""

    index: int = 0
    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    prompt_logprobs: Raw = Raw(b"null")


class PromptDetails(Struct):
    """Of `usage`."""

    cached_tokens: int | None = None


class Usage(Struct):
    """Counts that come with an answer."""

    prompt_tokens_details: PromptDetails | None = None


class Completions(Struct):
    """An answer, or an event."""

    choices: list[Choice]
    usage: Usage | None = None


class PromptLogprob(Struct):
    """Of one token at one place of the prompt."""

    logprob: float
    rank: int | None = None


async def completion_deltas(
    link: Link,
    body: Mapping[str, Any],
    request: GenerationRequest,
    version: int,
    *,
    whole: bool,
    timeout_seconds: float,
) -> AsyncGenerator[Delta]:
    """Ask, and read what comes.

    Args:
        body: without `stream`.
        version: of all tokens.
        whole: one delta for each completion. So it is also where the prompt's log-probabilities are wanted, which come
            with whole answers alone.
        timeout_seconds: for a whole answer.
    """
    if whole or request.sampling.prompt_logprobs:
        answer: Completions = await link.call(
            PATH, {**body, "stream": False}, phase=PHASE, timeout_seconds=timeout_seconds, kind=Completions
        )
        details = answer.usage.prompt_tokens_details if answer.usage is not None else None
        cached = details.cached_tokens if details is not None else None
        for choice in answer.choices:
            yield _delta(link, choice, request, version, cached)
        return
    async with aclosing(link.events(PATH, {**body, "stream": True}, phase=PHASE, kind=Completions)) as events:
        async for event in events:
            for choice in event.choices:
                yield _delta(link, choice, request, version, None)


def _delta(link: Link, choice: Choice, request: GenerationRequest, version: int, cached: int | None) -> Delta:
    token_ids = choice.token_ids
    if token_ids is None:
        raise EngineError(f"{link.server.url}: {PHASE}: it answers without token ids (return_token_ids)")
    logprobs: Sequence[float | None] = choice.logprobs.token_logprobs if choice.logprobs is not None else []
    if choice.logprobs is None and not request.sampling.wants_logprobs:
        logprobs = [None] * len(token_ids)
    if len(logprobs) != len(token_ids):
        raise EngineError(f"{link.server.url}: {PHASE}: {len(token_ids)} tokens came with {len(logprobs)} logprobs")
    num_top = request.sampling.num_top_logprobs
    if num_top and choice.logprobs is not None:
        tops = msgspec.json.decode(choice.logprobs.top_logprobs, type=list[dict[str, float]])
        scores = [TokenScores(one, _likeliest(top, num_top)) for one, top in zip(logprobs, tops, strict=True)]
    else:
        scores = [TokenScores(one) for one in logprobs]
    reason = choice.finish_reason
    is_first = choice.index == 0 and cached is not None
    return Delta(
        choice.index,
        token_ids,
        scores,
        [version] * len(token_ids),
        "",
        None if reason is None else stop_reason_of(link, reason),
        choice.stop_reason if reason == "stop" else None,
        _prompt_scores(choice, request) if choice.index == 0 and request.sampling.prompt_logprobs else None,
        cached if is_first else None,
    )


def _likeliest(top: Mapping[str, float], count: int) -> tuple[tuple[int, float], ...]:
    """Of `{"token_id:7": -0.5}`, which has the drawn token too, the likeliest as ids."""
    pairs = sorted(top.items(), key=lambda pair: -pair[1])[:count]
    return tuple((int(token.removeprefix("token_id:")), logprob) for token, logprob in pairs)


def stop_reason_of(link: Link, reason: str) -> StopReason:
    """Of a `finish_reason`.

    Raises:
        EngineError: it is none that a whole completion has, such as `error`.
    """
    if reason not in STOP_REASONS:
        raise EngineError(f"{link.server.url}: {PHASE}: it ended a completion for the reason '{reason}'")
    return STOP_REASONS[reason]


def _prompt_scores(choice: Choice, request: GenerationRequest) -> list[TokenScores]:
    """The prompt's, from a mapping of each place: the token that is there, and the likeliest."""
    places = msgspec.json.decode(choice.prompt_logprobs, type=list[dict[int, PromptLogprob] | None] | None) or []
    num_top = request.sampling.num_top_logprobs
    return [_place(token, place, num_top) for token, place in zip(request.prompt_ids, places, strict=False)]


def _place(token: int, place: Mapping[int, PromptLogprob] | None, num_top: int) -> TokenScores:
    if place is None:
        return TokenScores(None)
    likeliest: Sequence[tuple[int, PromptLogprob]] = sorted(place.items(), key=lambda pair: -pair[1].logprob)
    top = tuple((other, found.logprob) for other, found in likeliest[:num_top])
    return TokenScores(place[token].logprob, top)
