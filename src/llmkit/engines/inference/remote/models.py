"""`/v1/models`, which all servers have: the model, how long its context is, and its adapters."""

from msgspec import Struct

from llmkit.engines.inference.remote.contract import Link, ServerFacts
from llmkit.errors import EngineError

PHASE = "asking what it serves"


class ModelCard(Struct):
    """A model, or an adapter, which has a parent."""

    id: str
    owned_by: str = ""
    max_model_len: int | None = None
    parent: str | None = None


class ModelList(Struct):
    """The answer."""

    data: list[ModelCard]


async def model_cards(link: Link) -> list[ModelCard]:
    """All models and adapters.

    Raises:
        EngineError: see `Link`.
    """
    models: ModelList = await link.call("/v1/models", phase=PHASE, method="GET", kind=ModelList)
    return models.data


async def ask_models(link: Link, version: str) -> ServerFacts:
    """The facts of the model that the link's server is asked for.

    Raises:
        EngineError: it has no such model, or see `Link`.
    """
    cards = await model_cards(link)
    lengths = {card.id: card.max_model_len for card in cards if card.parent is None}
    if link.server.model not in lengths:
        what = f"no model '{link.server.model}'; there are: {', '.join(lengths) or 'none'}"
        raise EngineError(f"{link.server.url}: {PHASE}: {what}")
    return ServerFacts(lengths[link.server.model], version, tuple(card.id for card in cards if card.parent is not None))
