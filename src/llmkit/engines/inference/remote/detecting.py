"""What kind of server is behind an address."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.remote.models import model_cards
from llmkit.engines.inference.remote.refusals import ServedLogprobs
from llmkit.errors import EngineError, RequestError

PHASE = "finding out what it is"
A_TOKEN = 1
"""Every vocabulary has it."""
SAME = 1e-4
"""Nats by which equal log-probabilities may differ."""


@dataclass(frozen=True)
class Detected:
    """A kind of server.

    Attributes:
        program: `llmkit`, `vllm`, `sglang`, or what else it calls itself; empty when it does not say.
        gives_token_ids: whether completions come with them.
        logprobs: of which distribution; None when it gives none.
    """

    program: str
    gives_token_ids: bool
    logprobs: ServedLogprobs | None


class Logprobs(Struct):
    """Of the one token that is asked for."""

    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(Struct):
    """The completion that is asked for."""

    token_ids: list[int] | None = None
    logprobs: Logprobs | None = None


class Answer(Struct):
    """Of `/v1/completions`."""

    choices: list[Choice]


async def detect(link: Link) -> Detected:
    """Ask a server what it calls itself, and for a token.

    Raises:
        EngineError: it cannot be reached, or has no `/v1/completions`.
    """
    cards = await model_cards(link)
    program = next((card.owned_by for card in cards if card.id == link.server.model), "")
    if program == "llmkit":
        return Detected(program, gives_token_ids=True, logprobs="raw")
    cold, warm = [await _one_token(link, temperature) for temperature in (1.0, 2.0)]
    likeliest = [_likeliest(choice) for choice in (cold, warm)]
    gives_token_ids = bool(cold.token_ids) and likeliest[0] is not None
    return Detected(program, gives_token_ids, _kind(likeliest) if gives_token_ids else None)


async def _one_token(link: Link, temperature: float) -> Choice:
    body: dict[str, Any] = {"model": link.server.model, "prompt": [A_TOKEN], "max_tokens": 1}
    body |= {"temperature": temperature, "top_p": 1.0, "logprobs": 1, "return_token_ids": True}
    try:
        answer: Answer = await link.call("/v1/completions", body, phase=PHASE, kind=Answer)
    except RequestError:
        # It takes no token ids, or has no log-probabilities.
        text = {"model": link.server.model, "prompt": "1", "max_tokens": 1, "temperature": temperature}
        answer = await link.call("/v1/completions", text, phase=PHASE, kind=Answer)
    if not answer.choices:
        raise EngineError(f"{link.server.url}: {PHASE}: its answer has no completion")
    return answer.choices[0]


def _likeliest(choice: Choice) -> float | None:
    """The greatest log-probability, which is of the same token at every temperature."""
    tops = choice.logprobs.top_logprobs if choice.logprobs is not None else None
    return max(tops[0].values(), default=None) if tops and tops[0] else None


def _kind(likeliest: Sequence[float | None]) -> ServedLogprobs:
    """Temperature changes the log-probabilities that come after it."""
    cold, warm = likeliest
    return "raw" if cold is not None and warm is not None and abs(cold - warm) < SAME else "processed"
