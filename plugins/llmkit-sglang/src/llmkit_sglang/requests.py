"""What SGLang's `/generate` is asked, and what it is not asked because it would do it in another way."""

from typing import Any

import msgspec

from llmkit.engines.inference.contract import GenerationRequest
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
from llmkit.types import SamplingParams, Structure

NAME = "SGLang"
"""For messages."""


def check_request(request: GenerationRequest, *, is_raw: bool) -> None:
    """Refuse what SGLang does not know or does in another way.

    Args:
        is_raw: whether its log-probabilities are from before temperature.
    Raises:
        RequestError: names the parameter and the way out.
    """
    sampling = request.sampling
    check_unknown(NAME, sampling, ("banned_token_ids", "allowed_token_ids"))
    limits = {"presence_penalty": (-2.0, 2.0), "frequency_penalty": (-2.0, 2.0), "repetition_penalty": (1e-6, 2.0)}
    check_ranges(NAME, sampling, limits)
    if sampling.repetition_penalty != 1 and (sampling.presence_penalty or sampling.frequency_penalty):
        raise refuse(NAME, "repetition_penalty", sampling.repetition_penalty, "applies it after the other penalties")
    if sampling.structure is not None and sampling.min_new_tokens:
        raise refuse(NAME, "min_new_tokens", sampling.min_new_tokens, "cannot go on after a structure's end")
    if request.priority:
        raise refuse(NAME, "priority", request.priority, "orders requests by it only where that is set up")
    if request.cache_salt:
        raise refuse(NAME, "cache_salt", request.cache_salt, "shares its cache among all requests")
    other = "processed" if is_raw else "raw"
    way_out = f"start it with engine.logprobs={other}, or sample without what changes them"
    check_logprobs(NAME, sampling, _served(sampling, is_raw=is_raw), way_out)


def _served(sampling: SamplingParams, *, is_raw: bool) -> ServedLogprobs:
    """Its log-probabilities are after masks and penalties, and before truncation; after temperature, or before it.

    Raises:
        RequestError: none of ours is like that.
    """
    if not is_edited(sampling):
        return "raw" if is_raw else "scaled"
    is_scaled = not is_raw or sampling.temperature in (0, 1)
    if sampling.logprob_kind != "any" and (is_truncated(sampling) or not is_scaled):
        what = "truncation" if is_scaled else "a temperature"
        raise refuse(
            NAME, "logprob_kind", sampling.logprob_kind, f"gives none of them for penalties or masks with {what}"
        )
    return "processed"


def body_of(request: GenerationRequest) -> dict[str, Any]:
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
