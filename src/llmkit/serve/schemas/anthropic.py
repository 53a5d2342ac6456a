"""`/v1/messages`: Anthropic's API."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from llmkit.serve.schemas.common import Count, Text


class TextBlock(Struct, tag_field="type", tag="text", kw_only=True):
    """Text."""

    text: str


class ThinkingBlock(Struct, tag_field="type", tag="thinking", kw_only=True):
    """What the model thought before it answered."""

    thinking: str
    signature: str = ""


class RedactedThinkingBlock(Struct, tag_field="type", tag="redacted_thinking"):
    """Thoughts of another provider's model, which nobody can read; they are left out."""


class ImageBlock(Struct, tag_field="type", tag="image"):
    """An image; no model that is served here takes one."""


class DocumentBlock(Struct, tag_field="type", tag="document"):
    """A document; no model that is served here takes one."""


class ToolUseBlock(Struct, tag_field="type", tag="tool_use", kw_only=True):
    """A call that the assistant made."""

    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Struct, tag_field="type", tag="tool_result", kw_only=True):
    """What a tool answered."""

    tool_use_id: str
    content: str | list[TextBlock | ImageBlock | DocumentBlock] | None = None
    is_error: bool | None = None


Block = TextBlock | ThinkingBlock | RedactedThinkingBlock | ImageBlock | DocumentBlock | ToolUseBlock | ToolResultBlock


class InputMessage(Struct, kw_only=True):
    """A turn of the conversation; `system` is taken among the turns too, as some clients send it."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class AnthropicTool(Struct, kw_only=True):
    """A tool that the model may use."""

    name: Text
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    type: str | None = None


class ToolChoice(Struct, kw_only=True):
    """Whether the model may, must or must not use tools, or which one."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, kw_only=True):
    """Whether the model should think first. It does as its chat template says: this changes nothing."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class CountRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A conversation whose tokens are to be counted."""

    model: Text
    messages: Annotated[list[InputMessage], Meta(min_length=1)]
    system: str | list[TextBlock] | None = None
    tools: list[AnthropicTool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None


class MessagesRequest(CountRequest, kw_only=True, forbid_unknown_fields=True):
    """A conversation to go on with."""

    max_tokens: Count
    temperature: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_p: Annotated[float, Meta(gt=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, lt=1 << 31)] | None = None
    stop_sequences: Annotated[list[str], Meta(max_length=64)] | None = None
    stream: bool | None = None
    # For the provider's own bookkeeping: taken, and without meaning here.
    metadata: dict[str, Any] | None = None
    service_tier: str | None = None
    container: str | None = None
    context_management: dict[str, Any] | None = None


class TokenCount(Struct, kw_only=True):
    """Tokens of a conversation."""

    input_tokens: int


class MessageUsage(Struct, kw_only=True):
    """Tokens in and out."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


AnswerBlock = TextBlock | ThinkingBlock | ToolUseBlock
MessageStop = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]


class MessageAnswer(Struct, kw_only=True):
    """The assistant's turn."""

    id: str
    model: str
    content: list[AnswerBlock]
    usage: MessageUsage
    stop_reason: MessageStop | None = None
    stop_sequence: str | None = None
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class AnthropicErrorBody(Struct, kw_only=True):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(Struct, kw_only=True):
    """An error, as Anthropic writes it."""

    error: AnthropicErrorBody
    type: Literal["error"] = "error"
    request_id: str | UnsetType = UNSET
