"""One request, as everything that answers it knows it."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

from llmkit.engines.inference.contract import Delta, GenerationRequest
from llmkit.serve.admission import Place
from llmkit.serve.api_errors import Dialect
from llmkit.serve.service import Service

CONTEXT = "llmkit.context"


@dataclass
class Context:
    """One request, as handlers and the access log know it.

    Attributes:
        service: what is served.
        request_id: given by the client, or made here.
        dialect: whose errors the client understands.
        key_id: id of the API key that was used; None where none is needed.
        path: parameters of the path.
        notes: more for the access log: tokens, the model.
        place: among the requests that the server can have; None for those that take none.
    """

    service: Service
    request_id: str
    dialect: Dialect
    key_id: str | None = None
    path: dict[str, Any] = field(default_factory=dict[str, Any])
    notes: dict[str, Any] = field(default_factory=dict[str, Any])
    place: Place | None = None

    async def draw(self, requests: Sequence[GenerationRequest]) -> AsyncGenerator[tuple[int, Delta]]:
        """As `Service.draw`; the place is free before the client hears the end, and can ask again."""
        drawn = self.service.draw(requests)
        try:
            async for item in drawn:
                yield item
        finally:
            await drawn.aclose()
            self.leave()

    def leave(self) -> None:
        """Give the place back, if there is one."""
        if self.place is not None:
            self.place.leave()
