"""How long each kind of waiting for a server may take."""

from typing import Annotated

from pydantic import Field

from llmkit.config.section import Nonsemantic, Section


class Deadlines(Section):
    """Nothing waits longer than this; all in seconds."""

    connect_seconds: Annotated[float, Nonsemantic] = Field(default=10.0, gt=0)
    """To reach a server."""
    answer_seconds: Annotated[float, Nonsemantic] = Field(default=60.0, gt=0)
    """For a server to answer what it does at once: a pause, an adapter, what it serves."""
    idle_seconds: Annotated[float, Nonsemantic] = Field(default=300.0, gt=0)
    """Between two parts of a streamed completion, and until the first one."""
    request_seconds: Annotated[float, Nonsemantic] = Field(default=3600.0, gt=0)
    """For a completion that is not streamed, from its request to its last token, retries included."""
    recovery_seconds: Annotated[float, Nonsemantic] = Field(default=120.0, gt=0)
    """For a server to come back, when none is left that a request can go to."""
    health_seconds: Annotated[float, Nonsemantic] = Field(default=5.0, gt=0)
    """Between two looks at a server; after three without an answer, what it was asked goes to another one."""
