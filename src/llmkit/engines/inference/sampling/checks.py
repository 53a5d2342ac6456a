"""Sampling parameters that make no sense are refused before anything is drawn."""

import math

from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.errors import RequestError
from llmkit.types import SamplingParams


def check(sampling: SamplingParams, context: SamplingContext) -> None:
    """See that every setting has a meaning with this model.

    Raises:
        RequestError: with the setting, its value, and what it may be.
    """
    _check_numbers(sampling)
    _check_token_ids(sampling, context.vocab_size)
    if "" in sampling.stop:
        raise RequestError("stop has an empty string, which is everywhere; leave it out")
    if context.tokenizer is None and (sampling.stop or sampling.structure is not None):
        setting = "stop" if sampling.stop else "structure"
        raise RequestError(f"{setting} needs a tokenizer, and this engine was started without one; give token ids only")


def _check_numbers(sampling: SamplingParams) -> None:
    limits = (
        ("max_new_tokens", sampling.max_new_tokens, 1, math.inf),
        ("min_new_tokens", sampling.min_new_tokens, 0, sampling.max_new_tokens),
        ("temperature", sampling.temperature, 0, math.inf),
        ("top_k", sampling.top_k, 0, math.inf),
        ("top_p", sampling.top_p, 0, 1),
        ("min_p", sampling.min_p, 0, 1),
        ("presence_penalty", sampling.presence_penalty, -math.inf, math.inf),
        ("frequency_penalty", sampling.frequency_penalty, -math.inf, math.inf),
        ("num_top_logprobs", sampling.num_top_logprobs, 0, math.inf),
    )
    for name, value, low, high in limits:
        if not (math.isfinite(value) and low <= value <= high):
            what = f"from {low} to {high}" if math.isfinite(high) else f"{low} or more"
            raise RequestError(f"{name}={value}: give a number {what if math.isfinite(low) else 'that is finite'}")
    if not (math.isfinite(sampling.repetition_penalty) and sampling.repetition_penalty > 0):
        raise RequestError(f"repetition_penalty={sampling.repetition_penalty}: give a number above 0; 1 is off")
    for token, bias in sampling.logit_bias:
        if math.isnan(bias) or bias == math.inf:
            raise RequestError(f"logit_bias of token {token} is {bias}: give a number, or -inf to ban the token")


def _check_token_ids(sampling: SamplingParams, vocab_size: int) -> None:
    lists = (
        ("stop_token_ids", sampling.stop_token_ids),
        ("allowed_token_ids", sampling.allowed_token_ids or ()),
        ("banned_token_ids", sampling.banned_token_ids),
        ("logit_bias", [token for token, _ in sampling.logit_bias]),
    )
    for name, token_ids in lists:
        for token in token_ids:
            if not 0 <= token < vocab_size:
                raise RequestError(f"{name}: token {token} is not in the vocabulary; ids go from 0 to {vocab_size - 1}")
    if sampling.allowed_token_ids is not None:
        left = {*sampling.allowed_token_ids, *sampling.stop_token_ids} - {*sampling.banned_token_ids}
        if not left:
            raise RequestError("allowed_token_ids and banned_token_ids leave no token to draw; allow one more")
