"""A request's parameters as the engine's."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llmkit.serve.api_errors import bad_request
from llmkit.serve.model_defaults import ModelDefaults, given
from llmkit.serve.schemas.common import JsonObjectFormat, JsonSchemaFormat, ResponseFormat, Sampling, StructuredOutputs
from llmkit.serve.schemas.native import GenerateSampling
from llmkit.types import SamplingParams, Structure


def openai_sampling(
    request: Sampling,
    *,
    max_new_tokens: int,
    end_ids: Sequence[int],
    defaults: ModelDefaults,
    top_logprobs: int | None = None,
    structure: Structure | None = None,
) -> SamplingParams:
    """The parameters of an OpenAI request.

    Args:
        request: chat or completion.
        max_new_tokens: most tokens of a completion.
        end_ids: tokens that end an answer, unless the request ignores them.
        defaults: the model's own, for what the request leaves out.
        top_logprobs: likeliest tokens to report; None reports no log-probabilities, so that their kind does not matter.
        structure: what a forced tool call must look like; it comes before what the request itself asks for.
    Raises:
        ApiError: 400, a value makes no sense.
    """
    stops = tuple(request.stop_token_ids or ())
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        temperature=given(request.temperature, defaults.temperature),
        top_k=max(0, given(request.top_k, defaults.top_k)),
        top_p=given(request.top_p, defaults.top_p),
        stop_token_ids=stops if request.ignore_eos else tuple(dict.fromkeys((*end_ids, *stops))),
        seed=request.seed,
        min_p=given(request.min_p, defaults.min_p),
        repetition_penalty=given(request.repetition_penalty, defaults.repetition_penalty),
        presence_penalty=request.presence_penalty or 0.0,
        frequency_penalty=request.frequency_penalty or 0.0,
        logit_bias=_logit_bias(request.logit_bias or {}),
        allowed_token_ids=None if request.allowed_token_ids is None else tuple(request.allowed_token_ids),
        banned_token_ids=tuple(request.banned_token_ids or ()),
        min_new_tokens=request.min_tokens or 0,
        stop=stop_strings(request.stop),
        structure=structure or _structure(request.response_format, request.structured_outputs),
        logprob_kind="any" if top_logprobs is None and request.prompt_logprobs is None else "raw",
        num_top_logprobs=max(top_logprobs or 0, request.prompt_logprobs or 0),
        prompt_logprobs=request.prompt_logprobs is not None,
    )


def native_sampling(request: GenerateSampling, *, max_new_tokens: int, end_ids: Sequence[int]) -> SamplingParams:
    """The parameters of a `/generate` request.

    Raises:
        ApiError: 400, a value makes no sense.
    """
    return SamplingParams(
        max_new_tokens=max_new_tokens,
        temperature=request.temperature,
        top_k=request.top_k,
        top_p=request.top_p,
        stop_token_ids=tuple(end_ids if request.stop_token_ids is None else request.stop_token_ids),
        seed=request.seed,
        min_p=request.min_p,
        repetition_penalty=request.repetition_penalty,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        logit_bias=_logit_bias(request.logit_bias, "sampling.logit_bias"),
        allowed_token_ids=None if request.allowed_token_ids is None else tuple(request.allowed_token_ids),
        banned_token_ids=tuple(request.banned_token_ids),
        min_new_tokens=request.min_new_tokens,
        stop=stop_strings(request.stop, "sampling.stop"),
        structure=_structured(request.structure, "sampling.structure") if request.structure is not None else None,
        logprob_kind=request.logprob_kind,
        num_top_logprobs=request.num_top_logprobs,
        prompt_logprobs=request.prompt_logprobs,
    )


def stop_strings(stop: str | Sequence[str] | None, param: str = "stop") -> tuple[str, ...]:
    """Stop strings, each once.

    Raises:
        ApiError: 400, one is empty.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(dict.fromkeys(stop or ()))
    if "" in stops:
        raise bad_request(f"{param}: a stop string must not be empty", param)
    return stops


def json_structure(schema: Mapping[str, Any]) -> Structure:
    """JSON that fits a schema."""
    return Structure("json_schema", json.dumps(schema))


def _structure(response_format: ResponseFormat | None, structured: StructuredOutputs | None) -> Structure | None:
    if structured is not None:
        if isinstance(response_format, JsonObjectFormat | JsonSchemaFormat):
            raise bad_request("response_format and structured_outputs exclude each other", "structured_outputs")
        return _structured(structured, "structured_outputs")
    if isinstance(response_format, JsonSchemaFormat):
        return json_structure(response_format.json_schema.schema or {})
    # JSON mode promises an object, whatever else JSON may be.
    return json_structure({"type": "object"}) if isinstance(response_format, JsonObjectFormat) else None


def _structured(wanted: StructuredOutputs, param: str) -> Structure:
    found: list[Structure] = []
    if wanted.json is not None:
        found.append(Structure("json_schema", wanted.json if isinstance(wanted.json, str) else json.dumps(wanted.json)))
    if wanted.json_object:
        found.append(json_structure({"type": "object"}))
    if wanted.regex is not None:
        found.append(Structure("regex", wanted.regex))
    if wanted.grammar is not None:
        found.append(Structure("grammar", wanted.grammar))
    if wanted.choice is not None:
        found.append(Structure("choice", json.dumps(wanted.choice)))
    if len(found) != 1:
        raise bad_request(
            f"{param}: give one of json, json_object, regex, choice, grammar; there are {len(found)}", param
        )
    return found[0]


def _logit_bias(biases: Mapping[str, float], param: str = "logit_bias") -> tuple[tuple[int, float], ...]:
    for token in biases:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise bad_request(f"{param}: '{token}' is no token id", param)
    return tuple((int(token), bias) for token, bias in biases.items())
