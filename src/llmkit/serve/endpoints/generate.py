"""`POST /generate`: tokens in, tokens out with log-probabilities and weight versions, for rollouts."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import monotonic

from msgspec import UNSET

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.serve.api_errors import ApiError, bad_request
from llmkit.serve.context import Context
from llmkit.serve.endpoints.logprobs import finite
from llmkit.serve.sampling import native_sampling
from llmkit.serve.schemas.native import GenerateAnswer, Generated, GenerateRequest
from llmkit.serve.streams import DONE, Stream, event


async def generate(context: Context, request: GenerateRequest) -> GenerateAnswer | Stream:
    """Complete a prompt. What a deadline or a pause ends comes as it is, with `stop_reason` cancelled."""
    service = context.service
    if (request.prompt_ids is None) == (request.text is None):
        raise bad_request("give one of prompt_ids and text", "prompt_ids")
    if request.adapter is not None and request.adapter not in service.engine.adapters:
        known = ", ".join(service.engine.adapters) or "none"
        raise ApiError(404, f"The adapter `{request.adapter}` does not exist; there are: {known}", param="adapter")
    if request.n > service.limits.max_completions:
        raise bad_request(f"n={request.n} is more than the {service.limits.max_completions} allowed", "n")
    prompt_ids = request.prompt_ids if request.text is None else await service.text_ids(request.text)
    assert prompt_ids is not None
    service.check_prompt(prompt_ids, "prompt_ids" if request.text is None else "text")
    wanted = request.sampling.max_new_tokens
    sampling = native_sampling(
        request.sampling,
        max_new_tokens=service.new_tokens(len(prompt_ids), wanted, "sampling.max_new_tokens"),
        end_ids=service.end_ids,
    )
    generation = GenerationRequest(
        prompt_ids,
        sampling,
        request.n,
        request.adapter,
        request.priority,
        request.cache_salt,
        service.timeout(request.timeout_seconds),
    )
    if request.stream:
        return Stream(_events(context, generation))
    return await _whole(context, generation)


async def _whole(context: Context, generation: GenerationRequest) -> GenerateAnswer:
    completions = [
        Generated(index=index, token_ids=[], logprobs=[], versions=[], text="", stop_reason=None)
        for index in range(generation.num_completions)
    ]
    scores: list[TokenScores] | None = None
    num_cached = 0
    async with aclosing(_deltas(context, generation)) as deltas:
        async for delta in deltas:
            scores = delta.prompt_scores or scores
            num_cached += delta.num_cached_tokens or 0
            added, whole = _generated(delta, generation), completions[delta.index]
            whole.token_ids += added.token_ids
            whole.logprobs += added.logprobs
            whole.versions += added.versions
            whole.text += added.text
            whole.stop_reason, whole.stop = added.stop_reason, added.stop
            if added.top_logprobs is not UNSET:
                whole.top_logprobs = [*(whole.top_logprobs or []), *added.top_logprobs]
    return GenerateAnswer(
        id=context.request_id,
        completions=completions,
        num_prompt_tokens=len(generation.prompt_ids),
        num_cached_tokens=num_cached,
        version=context.service.engine.version,
        prompt_logprobs=UNSET if scores is None else _prompt(scores),
    )


async def _events(context: Context, generation: GenerationRequest) -> AsyncGenerator[bytes]:
    """Each event has what one delta adds; the first one what the prompt scored, where that was asked for."""
    async with aclosing(_deltas(context, generation)) as deltas:
        async for delta in deltas:
            yield event(
                GenerateAnswer(
                    id=context.request_id,
                    completions=[_generated(delta, generation)],
                    num_prompt_tokens=len(generation.prompt_ids),
                    num_cached_tokens=delta.num_cached_tokens or 0,
                    version=context.service.engine.version,
                    prompt_logprobs=UNSET if delta.prompt_scores is None else _prompt(delta.prompt_scores),
                )
            )
    yield DONE


async def _deltas(context: Context, generation: GenerationRequest) -> AsyncGenerator[Delta]:
    count, start = 0, monotonic()
    drawn = context.draw([generation])
    try:
        async for _, delta in drawn:
            count += len(delta.token_ids)
            yield delta
    finally:
        context.notes |= {
            "prompt_tokens": len(generation.prompt_ids),
            "completion_tokens": count,
            "draw_seconds": round(monotonic() - start, 4),
        }
        await drawn.aclose()


def _generated(delta: Delta, generation: GenerationRequest) -> Generated:
    top = UNSET
    if generation.sampling.num_top_logprobs:
        top = [[(token_id, finite(logprob)) for token_id, logprob in score.top] for score in delta.scores]
    return Generated(
        index=delta.index,
        token_ids=list(delta.token_ids),
        logprobs=[None if score.logprob is None else finite(score.logprob) for score in delta.scores],
        versions=list(delta.versions),
        text=delta.text,
        stop_reason=delta.stop_reason,
        stop=delta.stop,
        top_logprobs=top,
    )


def _prompt(scores: list[TokenScores]) -> list[float | None]:
    return [None if score.logprob is None else finite(score.logprob) for score in scores]
