"""`/v1/completions`: OpenAI's older API, text or tokens in, text out."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from llmkit.serve.schemas.common import Sampling, TokenId, Usage

TokenIds = Annotated[list[TokenId], Meta(min_length=1)]


class CompletionRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """A prompt to go on with: a text, token ids, or several of one kind."""

    prompt: str | Annotated[list[str | int | list[int]], Meta(min_length=1)]
    max_tokens: Annotated[int, Meta(ge=0)] | None = None
    logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None


class TextLogprobs(Struct, kw_only=True):
    """Tokens as text with their log-probabilities, nats; null for the first token of an echoed prompt."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None] | None
    text_offset: list[int]


class TextChoice(Struct, kw_only=True):
    """One completion; while it streams, what is added to it."""

    index: int
    text: str
    logprobs: TextLogprobs | None = None
    finish_reason: Literal["stop", "length"] | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | UnsetType = UNSET
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[dict[str, float] | None] | UnsetType = UNSET


class TextCompletion(Struct, kw_only=True):
    """Completions, or a piece of them while they stream."""

    id: str
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["text_completion"] = "text_completion"
    system_fingerprint: str | None = None
