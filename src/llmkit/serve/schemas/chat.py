"""`/v1/chat/completions`: OpenAI's chat API."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from llmkit.serve.schemas.common import Count, Sampling, Usage

FinishReason = Literal["stop", "length", "tool_calls"]
FunctionName = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[a-zA-Z0-9_.-]+$")]


class TextPart(Struct, tag_field="type", tag="text", kw_only=True):
    """Text in a message."""

    text: str


class RefusalPart(Struct, tag_field="type", tag="refusal", kw_only=True):
    """Why the assistant did not answer, in an earlier turn."""

    refusal: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """An image; no model that is served here takes one."""


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """Sound; no model that is served here takes it."""


class FilePart(Struct, tag_field="type", tag="file"):
    """A file; no model that is served here takes one."""


ContentPart = TextPart | RefusalPart | ImagePart | AudioPart | FilePart
Content = str | list[ContentPart] | None


class FunctionCall(Struct, kw_only=True):
    """A function and its arguments as JSON text."""

    name: str
    arguments: str


class ToolCall(Struct, kw_only=True):
    """A call that the assistant made."""

    function: FunctionCall
    id: str | None = None
    type: Literal["function"] = "function"


class SystemMessage(Struct, tag_field="role", tag="system", kw_only=True):
    """Instructions."""

    content: Content
    name: str | None = None


class DeveloperMessage(Struct, tag_field="role", tag="developer", kw_only=True):
    """Instructions; templates know them as the system's."""

    content: Content
    name: str | None = None


class UserMessage(Struct, tag_field="role", tag="user", kw_only=True):
    """What the user says."""

    content: Content
    name: str | None = None


class AssistantMessage(Struct, tag_field="role", tag="assistant", kw_only=True):
    """What the assistant said or did."""

    content: Content = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None


class ToolMessage(Struct, tag_field="role", tag="tool", kw_only=True):
    """What a tool answered."""

    content: Content
    tool_call_id: str | None = None
    name: str | None = None


ChatMessage = SystemMessage | DeveloperMessage | UserMessage | AssistantMessage | ToolMessage


class Function(Struct, kw_only=True):
    """A function that the model may call. `strict` is so whenever a call is forced."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, kw_only=True):
    """A tool: a function is the only kind."""

    function: Function
    type: Literal["function"] = "function"


class NamedFunction(Struct, kw_only=True):
    """Which function."""

    name: str


class NamedTool(Struct, kw_only=True):
    """The tool that the model must call."""

    function: NamedFunction
    type: Literal["function"] = "function"


class ChatRequest(Sampling, kw_only=True, forbid_unknown_fields=True):
    """A conversation to go on with."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=100)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class TopLogprob(Struct, kw_only=True):
    """A token that was likely, with its log-probability (nats) and its UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int]


class TokenLogprob(Struct, kw_only=True):
    """The token that was drawn."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(Struct, kw_only=True):
    """One entry for each token of the answer."""

    content: list[TokenLogprob]
    refusal: None = None


class AnswerMessage(Struct, kw_only=True):
    """The assistant's answer; text, calls, or both."""

    content: str | None = None
    role: Literal["assistant"] = "assistant"
    refusal: None = None
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCall] | UnsetType = UNSET


class ChatChoice(Struct, kw_only=True):
    """One answer."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: ChoiceLogprobs | None = None
    stop_reason: str | int | None = None
    token_ids: list[int] | UnsetType = UNSET


class ChatCompletion(Struct, kw_only=True):
    """The answers to a conversation."""

    id: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    object: Literal["chat.completion"] = "chat.completion"
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
    prompt_logprobs: list[dict[str, float] | None] | UnsetType = UNSET


class FunctionDelta(Struct, kw_only=True):
    """What is added to a call."""

    name: str | UnsetType = UNSET
    arguments: str | UnsetType = UNSET


class ToolCallDelta(Struct, kw_only=True):
    """The call with this index begins, or its arguments go on."""

    index: int
    function: FunctionDelta
    id: str | UnsetType = UNSET
    type: Literal["function"] | UnsetType = UNSET


class MessageDelta(Struct, kw_only=True):
    """What is added to a message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType | None = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[ToolCallDelta] | UnsetType = UNSET


class ChunkChoice(Struct, kw_only=True):
    """What is added to one answer."""

    index: int
    delta: MessageDelta
    logprobs: ChoiceLogprobs | None = None
    finish_reason: FinishReason | None = None
    stop_reason: str | int | UnsetType | None = UNSET
    token_ids: list[int] | UnsetType = UNSET


class ChatChunk(Struct, kw_only=True):
    """A piece of a streamed completion."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Usage | UnsetType | None = UNSET
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    system_fingerprint: str | None = None
    prompt_token_ids: list[int] | UnsetType = UNSET
