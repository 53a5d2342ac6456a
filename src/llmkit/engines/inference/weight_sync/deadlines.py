"""Deadlines of the phases of an update."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.contract import PhaseTimeoutError

GRACE_SECONDS = 5.0
"""A server's own deadline, and the link's, come first: their errors say more."""


@asynccontextmanager
async def deadline(phase: str, seconds: float, link: Link | None = None) -> AsyncIterator[None]:
    """A block that may take so long.

    Args:
        phase: what is done in it, for the message: `loading weights`.
        link: to the server that is waited for; None when it is this process.

    Raises:
        PhaseTimeoutError: it took longer.
    """
    try:
        async with asyncio.timeout(seconds + GRACE_SECONDS):
            yield
    except TimeoutError:
        whom = "this process" if link is None else describe(link)
        raise PhaseTimeoutError(
            f"{phase}: {whom} took longer than {seconds:g} s (engine.sync.timeout_seconds)"
        ) from None


def describe(link: Link) -> str:
    """A server in messages."""
    return f"server {link.server.index} ({link.server.url})"
