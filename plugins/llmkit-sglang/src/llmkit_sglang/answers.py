"""What SGLang's `/generate` answers, as deltas."""

import msgspec
from msgspec import Raw, Struct

from llmkit.engines.inference.contract import Delta, GenerationRequest, TokenScores
from llmkit.engines.inference.remote.completions import stop_reason_of
from llmkit.engines.inference.remote.contract import Link

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


def delta_of(link: Link, request: GenerationRequest, output: Output, index: int, known: int, version: int) -> Delta:
    """What an answer, or an event, adds to one completion.

    Args:
        index: of the completion.
        known: tokens of it that came before.
        version: of the weights, where the server's name for them is no number.
    """
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
