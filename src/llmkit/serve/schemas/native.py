"""llmkit's own endpoints: tokens in and out, and what keeps a server running."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from llmkit.serve.schemas.chat import ChatMessage, Tool
from llmkit.serve.schemas.common import Priority, Probability, Seed, StructuredOutputs, Text, TokenId


class GenerateSampling(Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """How to draw; the names and defaults are those of llmkit's SamplingParams."""

    max_new_tokens: Annotated[int, Meta(ge=1)] = 256
    temperature: Annotated[float, Meta(ge=0, le=100)] = 1.0
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] = 0
    top_p: Probability = 1.0
    min_p: Annotated[float, Meta(ge=0, le=1)] = 0.0
    stop_token_ids: list[TokenId] | None = None
    stop: list[str] = []
    seed: Seed | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=100)] = 1.0
    presence_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    frequency_penalty: Annotated[float, Meta(ge=-2, le=2)] = 0.0
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] = {}
    allowed_token_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    banned_token_ids: list[TokenId] = []
    min_new_tokens: Annotated[int, Meta(ge=0)] = 0
    structure: StructuredOutputs | None = None
    logprob_kind: Literal["raw", "scaled", "processed"] = "scaled"
    num_top_logprobs: Annotated[int, Meta(ge=0, le=100)] = 0
    prompt_logprobs: bool = False


class GenerateRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A prompt as tokens or text, completed `n` times. `stop_token_ids` unset is the model's own end tokens."""

    prompt_ids: Annotated[list[TokenId], Meta(min_length=1)] | None = None
    text: str | None = None
    sampling: GenerateSampling = GenerateSampling()
    n: Annotated[int, Meta(ge=1, le=1024)] = 1
    stream: bool = False
    adapter: str | None = None
    priority: Priority = 0
    cache_salt: str = ""
    timeout_seconds: Annotated[float, Meta(gt=0)] | None = None


class Generated(Struct, kw_only=True):
    """A completion; while it streams, what is added to it. `logprobs` (nats) and `versions` are one for each token."""

    index: int
    token_ids: list[int]
    logprobs: list[float | None]
    versions: list[int]
    text: str
    stop_reason: Literal["stop", "length", "cancelled"] | None
    stop: str | int | None = None
    top_logprobs: list[list[tuple[int, float]]] | UnsetType = UNSET


class GenerateAnswer(Struct, kw_only=True):
    """The completions, what the prompt scored where that was asked for, and the version of the weights now."""

    id: str
    completions: list[Generated]
    num_prompt_tokens: int
    num_cached_tokens: int
    version: int
    prompt_logprobs: list[float | None] | UnsetType = UNSET


class TokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """A text (`prompt`), or a conversation (`messages`), to make tokens of."""

    model: str | None = None
    prompt: str | None = None
    messages: Annotated[list[ChatMessage], Meta(min_length=1)] | None = None
    tools: list[Tool] | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    chat_template_kwargs: dict[str, Any] | None = None
    return_token_strs: bool = False


class TokenizeAnswer(Struct, kw_only=True):
    """Token ids, and how many the model takes at most."""

    tokens: list[int]
    count: int
    max_model_len: int | None
    token_strs: list[str] | None = None


class DetokenizeRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """Token ids to make text of."""

    tokens: list[TokenId]
    model: str | None = None
    skip_special_tokens: bool = False


class DetokenizeAnswer(Struct, kw_only=True):
    """The text."""

    prompt: str


class LoadAdapterRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """An adapter's directory on the server's machine, and the name that requests will use for it."""

    lora_name: Text
    lora_path: Text


class UnloadAdapterRequest(Struct, forbid_unknown_fields=True, kw_only=True):
    """The adapter to forget."""

    lora_name: Text


class AdapterAnswer(Struct, kw_only=True):
    """What was done."""

    message: str
    adapters: list[str]


class Health(Struct, kw_only=True):
    """`ok`, or why not."""

    status: str


class VersionAnswer(Struct, kw_only=True):
    """Of llmkit, the engine and the weights."""

    version: str
    engine: str
    weights_version: int
