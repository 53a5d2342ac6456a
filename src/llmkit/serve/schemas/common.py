"""What requests of both OpenAI endpoints have, and what several answers share."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Probability = Annotated[float, Meta(gt=0, le=1)]
TokenId = Annotated[int, Meta(ge=0, lt=1 << 31)]
Priority = Annotated[int, Meta(ge=-(1 << 31), lt=1 << 31)]
Seed = Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
Text = Annotated[str, Meta(min_length=1)]


class StreamOptions(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to stream: `include_usage` adds a last chunk with the number of tokens."""

    include_usage: bool = False
    # Padding against guesses by the size of encrypted chunks: taken, and without meaning here.
    include_obfuscation: bool | None = None


class JsonSchema(Struct, kw_only=True):
    """A JSON schema with a name. `strict` is always so: what does not fit cannot be drawn."""

    name: Text
    schema: dict[str, Any] | None = None
    description: str | None = None
    strict: bool | None = None


class TextFormat(Struct, tag_field="type", tag="text"):
    """Any text."""


class JsonObjectFormat(Struct, tag_field="type", tag="json_object"):
    """Any JSON object."""


class JsonSchemaFormat(Struct, tag_field="type", tag="json_schema", kw_only=True):
    """JSON that fits a schema."""

    json_schema: JsonSchema


ResponseFormat = TextFormat | JsonObjectFormat | JsonSchemaFormat


class StructuredOutputs(Struct, forbid_unknown_fields=True, kw_only=True):
    """What the answer must look like; one of these. vLLM's name for it."""

    json: dict[str, Any] | str | None = None
    regex: Text | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    grammar: Text | None = None
    json_object: bool | None = None


class Sampling(Struct, forbid_unknown_fields=True, kw_only=True):
    """How to draw: OpenAI's parameters, and below them those that vLLM and others add."""

    model: Text
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Probability | None = None
    n: Annotated[int, Meta(ge=1, le=1024)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=64)] | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    # These are for the provider's own bookkeeping: they are taken, and mean nothing here.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Beyond OpenAI's API.
    top_k: Annotated[int, Meta(ge=-1, lt=1 << 31)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] | None = None
    min_tokens: Annotated[int, Meta(ge=0)] | None = None
    stop_token_ids: list[TokenId] | None = None
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    banned_token_ids: list[TokenId] | None = None
    ignore_eos: bool | None = None
    prompt_logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    structured_outputs: StructuredOutputs | None = None
    return_token_ids: bool | None = None
    priority: Priority | None = None
    cache_salt: str | None = None


class PromptTokensDetails(Struct, kw_only=True):
    """Of the prompt's tokens, those that a cache had."""

    cached_tokens: int = 0


class Usage(Struct, kw_only=True):
    """Tokens of a request."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptTokensDetails | None = None


class ErrorBody(Struct, kw_only=True):
    """What went wrong."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(Struct, kw_only=True):
    """An error, as OpenAI writes it."""

    error: ErrorBody


class ModelCard(Struct, kw_only=True):
    """A model, or an adapter over it."""

    id: str
    created: int
    object: Literal["model"] = "model"
    owned_by: str = "llmkit"
    root: str | None = None
    parent: str | None = None
    max_model_len: int | None = None


class ModelList(Struct, kw_only=True):
    """The models that requests can name."""

    data: list[ModelCard]
    object: Literal["list"] = "list"
