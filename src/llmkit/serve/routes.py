"""Every route: one table that the application and its description are both made of."""

from llmkit.serve.endpoints import chat, completions, generate, messages, operations
from llmkit.serve.http import Endpoint
from llmkit.serve.schemas import anthropic, common, native
from llmkit.serve.schemas.chat import ChatChunk, ChatCompletion, ChatRequest
from llmkit.serve.schemas.completions import CompletionRequest, TextCompletion

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "POST",
        "/v1/chat/completions",
        chat.chat_completions,
        ChatRequest,
        ChatCompletion,
        generates=True,
        events=ChatChunk,
    ),
    Endpoint(
        "POST",
        "/v1/completions",
        completions.completions,
        CompletionRequest,
        TextCompletion,
        generates=True,
        events=TextCompletion,
    ),
    Endpoint("GET", "/v1/models", operations.list_models, None, common.ModelList),
    Endpoint("GET", "/v1/models/{model:path}", operations.show_model, None, common.ModelCard),
    Endpoint(
        "POST",
        "/v1/messages",
        messages.messages,
        anthropic.MessagesRequest,
        anthropic.MessageAnswer,
        generates=True,
    ),
    Endpoint("POST", "/v1/messages/count_tokens", messages.count_tokens, anthropic.CountRequest, anthropic.TokenCount),
    Endpoint(
        "POST",
        "/generate",
        generate.generate,
        native.GenerateRequest,
        native.GenerateAnswer,
        generates=True,
        events=native.GenerateAnswer,
    ),
    Endpoint("POST", "/tokenize", operations.tokenize, native.TokenizeRequest, native.TokenizeAnswer),
    Endpoint("POST", "/detokenize", operations.detokenize, native.DetokenizeRequest, native.DetokenizeAnswer),
    Endpoint("POST", "/v1/load_lora_adapter", operations.load_adapter, native.LoadAdapterRequest, native.AdapterAnswer),
    Endpoint(
        "POST", "/v1/unload_lora_adapter", operations.unload_adapter, native.UnloadAdapterRequest, native.AdapterAnswer
    ),
    Endpoint("GET", "/health", operations.health, None, native.Health, is_open=True),
    Endpoint("GET", "/ready", operations.ready, None, native.Health, is_open=True),
    Endpoint("GET", "/version", operations.version, None, native.VersionAnswer),
    Endpoint("GET", "/metrics", operations.metrics),
)
