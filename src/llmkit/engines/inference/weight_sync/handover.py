"""One server's part of an update: begin, put, commit, each with a deadline."""

import asyncio
import uuid
from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.contract import Parcel, Receiver, Update
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.fingerprints import first_difference
from llmkit.errors import EngineError

BEGINNING, LOADING, COMMITTING = "beginning a weight update", "loading weights", "ending a weight update"
ABORT_SECONDS = 30.0
"""A server that has just failed is not waited for longer than this."""


@dataclass(frozen=True)
class Terms:
    """What holds for all updates of a run.

    Attributes:
        dtype: in which weights travel; None for that of the servers.
        bucket_bytes: that travel together, at most.
        seconds: deadline of each phase.
        compares: whether fingerprints are compared.
    """

    dtype: torch.dtype | None
    bucket_bytes: int
    seconds: float
    compares: bool


class Handover:
    """Brings tensors to one server, and remembers what went wrong: after that its methods do nothing.

    Attributes:
        link: to the server.
        failure: what went wrong.
    """

    def __init__(self, receiver: Receiver, link: Link, version: int, seconds: float, directory: Path | None = None):
        self.link = link
        self.failure: EngineError | None = None
        self._receiver = receiver
        self._update = Update(uuid.uuid4().hex, version, seconds, directory=directory)
        self._has_begun = False

    async def connect(self, group: dict[str, Any]) -> None:
        """Let the server join a process group."""
        await self._try("joining a process group", self._receiver.connect(self.link, self._update, group))

    async def begin(self) -> None:
        """Make the server ready."""
        if self.failure is None:
            self._has_begun = True
            await self._try(BEGINNING, self._receiver.begin(self.link, self._update))

    async def put(self, parcel: Parcel) -> None:
        """Let the server have tensors, and see that it has read them as they were sent."""
        if self.failure is None:
            await self._try(LOADING, self._put(parcel))

    async def commit(self) -> None:
        """Let the server draw with what it was sent."""
        if self.failure is None:
            await self._try(COMMITTING, self._receiver.commit(self.link, self._update))

    def fail(self, error: EngineError) -> None:
        """Count what went wrong on this side, if nothing has before."""
        self.failure = self.failure or error

    async def abort(self) -> None:
        """Give the update up; what that meets changes nothing: the server has failed already."""
        if not self._has_begun:
            return
        self._has_begun = False
        try:
            async with deadline("giving a weight update up", ABORT_SECONDS, self.link):
                await self._receiver.abort(self.link, self._update)
        except EngineError as error:
            if self.failure is not None:
                self.failure.add_note(str(error))

    async def _put(self, parcel: Parcel) -> None:
        for worker, read in enumerate(await self._receiver.put(self.link, self._update, parcel)):
            name = first_difference(parcel.fingerprints, read)
            if name is not None:
                raise EngineError(
                    f"{LOADING}: {describe(self.link)}: worker {worker} has read {name} with the checksum "
                    f"{read.get(name)}, and {parcel.fingerprints[name]} was sent; memory, disk or the way is faulty"
                )
        self._update.names.extend(parcel.names)

    async def _try(self, phase: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            async with deadline(phase, self._update.seconds, self.link):
                await work
        except EngineError as error:
            self.failure = error
            await self.abort()


async def all_of(steps: Iterable[Awaitable[None]]) -> None:
    """Do steps of several handovers side by side."""
    await asyncio.gather(*steps)


def failures_of(handovers: Sequence[Handover]) -> dict[int, EngineError]:
    """What went wrong, by the servers' index."""
    return {one.link.server.index: one.failure for one in handovers if one.failure is not None}


async def wire_dtype(terms: Terms, receiver: Receiver, links: Sequence[Link]) -> torch.dtype | None:
    """In which type weights travel: the chosen one, or that of the first server, whose model all of them have."""
    if terms.dtype is not None or not links:
        return terms.dtype
    async with deadline("asking how weights are kept", terms.seconds, links[0]):
        return (await receiver.facts(links[0], terms.seconds)).dtype
