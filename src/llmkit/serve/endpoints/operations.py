"""What is not generation: models, tokens, adapters, and how the server is doing."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from llmkit.plugins_requirements import PACKAGE, installed_version
from llmkit.serve.api_errors import ApiError, bad_request
from llmkit.serve.context import Context
from llmkit.serve.conversation import read_messages, tools_text
from llmkit.serve.http import JSON, Raw
from llmkit.serve.schemas.common import ModelCard, ModelList
from llmkit.serve.schemas.native import (
    AdapterAnswer,
    DetokenizeAnswer,
    DetokenizeRequest,
    Health,
    LoadAdapterRequest,
    TokenizeAnswer,
    TokenizeRequest,
    UnloadAdapterRequest,
    VersionAnswer,
)


async def list_models(context: Context, request: None) -> ModelList | Raw:
    """The model's names, and the adapters."""
    cards = _cards(context)
    if context.dialect == "anthropic":
        data = [_anthropic_card(card) for card in cards]
        ids = [card.id for card in cards]
        return _raw({"data": data, "has_more": False, "first_id": ids[0], "last_id": ids[-1]})
    return ModelList(data=cards)


async def show_model(context: Context, request: None) -> ModelCard | Raw:
    """One of them."""
    name = context.path["model"]
    context.service.find_model(name)
    card = next(card for card in _cards(context) if card.id == name)
    return _raw(_anthropic_card(card)) if context.dialect == "anthropic" else card


async def tokenize(context: Context, request: TokenizeRequest) -> TokenizeAnswer:
    """A text or a conversation as token ids."""
    service = context.service
    if request.model is not None:
        service.find_model(request.model)
    if (request.prompt is None) == (request.messages is None):
        raise bad_request("give one of prompt and messages", "prompt")
    if request.messages is not None:
        messages, tools = read_messages(request.messages), tools_text(request.tools)
        ids = await service.chat_ids(
            messages,
            tools,
            generation_prompt=request.add_generation_prompt,
            variables=request.chat_template_kwargs,
        )
    else:
        assert request.prompt is not None
        ids = await service.text_ids(request.prompt, special_tokens=request.add_special_tokens)
    strings = [service.token_texts.text(token_id) for token_id in ids] if request.return_token_strs else None
    return TokenizeAnswer(tokens=ids, count=len(ids), max_model_len=service.engine.context_length, token_strs=strings)


async def detokenize(context: Context, request: DetokenizeRequest) -> DetokenizeAnswer:
    """Token ids as text."""
    service = context.service
    if request.model is not None:
        service.find_model(request.model)
    wrong = [token for token in request.tokens if token >= service.codec.num_ids]
    if wrong:
        raise bad_request(f"{wrong[0]} is no token of this model; its ids are below {service.codec.num_ids}", "tokens")
    return DetokenizeAnswer(prompt=service.codec.decode(request.tokens, request.skip_special_tokens))


async def load_adapter(context: Context, request: LoadAdapterRequest) -> AdapterAnswer:
    """Load an adapter of this machine; requests then name it as their model."""
    service = context.service
    _check_may_load(context)
    if request.lora_name in service.names:
        raise bad_request(f"'{request.lora_name}' is the model's own name; give the adapter another one", "lora_name")
    if "\0" in request.lora_path:
        raise bad_request("a path has no NUL character", "lora_path")
    await service.engine.load_adapter(request.lora_name, Path(request.lora_path).expanduser())
    return AdapterAnswer(message=f"loaded adapter '{request.lora_name}'", adapters=list(service.engine.adapters))


async def unload_adapter(context: Context, request: UnloadAdapterRequest) -> AdapterAnswer:
    """Forget an adapter, once the requests that use it have ended."""
    _check_may_load(context)
    engine = context.service.engine
    if request.lora_name not in engine.adapters:
        known = ", ".join(engine.adapters) or "none"
        raise ApiError(404, f"No adapter named '{request.lora_name}'; there are: {known}", param="lora_name")
    await engine.unload_adapter(request.lora_name)
    return AdapterAnswer(message=f"unloaded adapter '{request.lora_name}'", adapters=list(engine.adapters))


async def health(context: Context, request: None) -> Health:
    """Whether the process lives."""
    return Health(status="ok")


async def ready(context: Context, request: None) -> Health:
    """Whether new requests should be sent here: 503 from the moment at which the server is told to stop."""
    if context.service.is_stopping:
        raise ApiError(503, "the server is shutting down", code="shutting_down", retry_after_seconds=1)
    return Health(status="ready")


async def version(context: Context, request: None) -> VersionAnswer:
    """What runs here."""
    service = context.service
    return VersionAnswer(
        version=installed_version(PACKAGE) or "unknown",
        engine=service.run.engine.name,
        weights_version=service.engine.version,
    )


async def metrics(context: Context, request: None) -> Raw:
    """Everything that is counted, for Prometheus."""
    return Raw(context.service.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")


def _check_may_load(context: Context) -> None:
    if not context.service.run.server.allow_adapter_loading:
        raise ApiError(
            403, "requests may not load adapters here; start the server with --set server.allow_adapter_loading=true"
        )


def _cards(context: Context) -> list[ModelCard]:
    service = context.service
    created, length, root = service.created, service.engine.context_length, service.run.model.path
    own = [ModelCard(id=name, created=created, root=root, max_model_len=length) for name in service.names]
    adapters = [
        ModelCard(id=name, created=created, root=name, parent=service.names[0], max_model_len=length)
        for name in service.engine.adapters
    ]
    return own + adapters


def _anthropic_card(card: ModelCard) -> dict[str, Any]:
    created = datetime.fromtimestamp(card.created, UTC).isoformat().replace("+00:00", "Z")
    return {"id": card.id, "type": "model", "display_name": card.id, "created_at": created}


def _raw(document: Any) -> Raw:
    return Raw(msgspec.json.encode(document), JSON)
