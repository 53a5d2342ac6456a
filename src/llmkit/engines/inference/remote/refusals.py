"""What a server would do in another way than `SamplingParams` says is refused, with the parameter and the way out."""

from collections.abc import Iterable
from typing import Literal

from llmkit.errors import RequestError
from llmkit.types import SamplingParams

ServedLogprobs = Literal["raw", "scaled", "processed"]
"""Of which distribution a server's log-probabilities are, in the words of `SamplingParams.logprob_kind`."""


def refuse(server: str, name: str, value: object, why: str) -> RequestError:
    """The error for a parameter that a kind of server does not have."""
    return RequestError(f"{name}={value!r}: {server} {why}")


def check_unknown(server: str, sampling: SamplingParams, names: Iterable[str]) -> None:
    """Refuse parameters that a server does not have, unless they are at their defaults.

    Raises:
        RequestError: one is set.
    """
    plain = SamplingParams()
    for name in names:
        value = getattr(sampling, name)
        if value != getattr(plain, name):
            raise refuse(server, name, value, "has no such parameter; leave it out")


def check_ranges(server: str, sampling: SamplingParams, ranges: dict[str, tuple[float, float]]) -> None:
    """Refuse values outside of what a server takes.

    Raises:
        RequestError: one is.
    """
    for name, (low, high) in ranges.items():
        value = getattr(sampling, name)
        if not low <= value <= high:
            raise refuse(server, name, value, f"takes {low:g} to {high:g}")


def check_logprobs(server: str, sampling: SamplingParams, served: ServedLogprobs, way_out: str) -> None:
    """Refuse a kind of log-probabilities that a server does not give and that is not the same as the one that it gives.

    `raw` and `scaled` are the same at temperature 1, and at 0, which is scaled as 1. `processed` is the same as
    `scaled` when nothing is masked, penalised or left out. From one of them no other can be computed without the logits
    of the whole vocabulary.

    Args:
        way_out: what the user can do to have the others.
    Raises:
        RequestError: names both.
    """
    wanted = sampling.logprob_kind
    if wanted == "any":
        return
    is_unscaled = sampling.temperature in (0, 1)
    is_untouched = is_plain(sampling)
    same = {served}
    for _ in range(2):
        if is_unscaled and same & {"raw", "scaled"}:
            same |= {"raw", "scaled"}
        if is_untouched and same & {"scaled", "processed"}:
            same |= {"scaled", "processed"}
    if wanted not in same:
        what = f"temperature {sampling.temperature:g}" if not is_unscaled else "what is masked, penalised or left out"
        raise refuse(
            server, "logprob_kind", wanted, f"gives the {served} log-probabilities, which differ with {what}; {way_out}"
        )
    if sampling.prompt_logprobs and wanted != "raw" and not is_unscaled:
        raise refuse(
            server, "prompt_logprobs", True, "scores prompts before temperature: ask for logprob_kind=raw with it"
        )


def is_plain(sampling: SamplingParams) -> bool:
    """Whether nothing but temperature lies between the model's logits and what is drawn from."""
    return not (is_edited(sampling) or is_truncated(sampling))


def is_edited(sampling: SamplingParams) -> bool:
    """Whether logits are masked, penalised or biased."""
    return bool(
        sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
        or sampling.logit_bias
        or sampling.allowed_token_ids is not None
        or sampling.banned_token_ids
        or sampling.min_new_tokens
        or sampling.structure is not None
    )


def is_truncated(sampling: SamplingParams) -> bool:
    """Whether unlikely tokens are left out; a greedy draw has no use for that."""
    return sampling.temperature > 0 and bool(sampling.top_k or sampling.top_p < 1 or sampling.min_p)
