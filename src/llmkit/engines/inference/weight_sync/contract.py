"""What the parts of weight sync promise one another.

A `Delivery` brings the policy's weights to servers by one way; a `Receiver` says how servers of one kind are told to
take them. `ServerWeightSync` makes a transaction of both.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from llmkit.engines.inference.remote.contract import Link
from llmkit.errors import EngineError

Named = tuple[str, Tensor]
"""A tensor and its name in a checkpoint."""


class PhaseTimeoutError(EngineError):
    """A phase of an update took longer than its deadline. The server may still be busy with it."""


@dataclass(frozen=True)
class TakingFacts:
    """What servers say of how they take weights.

    Attributes:
        dtype: in which they keep the weights; None where they do not tell.
        num_workers: processes that share the model's weights.
        device: of these processes: `cpu`, `cuda`.
    """

    dtype: torch.dtype | None
    num_workers: int
    device: str


@dataclass(frozen=True)
class Parcel:
    """Tensors that travel together.

    Attributes:
        names: of the tensors.
        fingerprints: of each tensor as it was sent; empty when nobody compares.
        message: what the server is told about where they are.
    """

    names: Sequence[str]
    fingerprints: Mapping[str, str]
    message: Mapping[str, Any]


@dataclass
class Update:
    """One update of all weights.

    Attributes:
        key: tells this try from others.
        version: of the weights.
        seconds: deadline of each phase.
        names: of all tensors that were put so far.
        directory: that holds all of them, where they travel as files.
    """

    key: str
    version: int
    seconds: float
    names: list[str] = field(default_factory=list[str])
    directory: Path | None = None


class Receiver(Protocol):
    """How servers of one kind take the weights of the whole model. It has no state of its own: one serves all links.

    Raises:
        EngineError: from all methods, when the server fails; names phase and server.
    """

    @property
    def transports(self) -> Collection[str]:
        """The ways that such servers know, by the names of `engine.sync.transport`."""
        ...

    def refusal(self, transport: str) -> str:
        """Why they do not know another way, and what to do."""
        ...

    async def facts(self, link: Link, seconds: float) -> TakingFacts:
        """How the server takes weights; also shows that it can."""
        ...

    async def connect(self, link: Link, update: Update, group: Mapping[str, Any]) -> None:
        """Join a process group with this process, which waits for it meanwhile.

        Args:
            group: `backend`, `host`, `port`, `name`, `world_size`, `timeout_seconds`; this process is rank 0.
        """
        ...

    async def begin(self, link: Link, update: Update) -> None:
        """Make ready for tensors; an update that has not ended is given up."""
        ...

    async def put(self, link: Link, update: Update, parcel: Parcel) -> Sequence[Mapping[str, str]]:
        """Take tensors; returns the fingerprints of what each worker has read, none where the server cannot tell."""
        ...

    async def commit(self, link: Link, update: Update) -> None:
        """End the update: the server draws with the new weights once it is resumed."""
        ...

    async def stamp(self, link: Link, version: int, seconds: float) -> None:
        """Let the server say this version of what it draws."""
        ...

    async def abort(self, link: Link, update: Update) -> None:
        """Give the update up; the server's weights are then of no known version."""
        ...


class Delivery(Protocol):
    """Brings the weights to servers by one way."""

    @property
    def adapter(self) -> str | None:
        """See `WeightSync`."""
        ...

    async def deliver(self, links: Sequence[Link], version: int) -> dict[int, EngineError]:
        """Bring the policy's present weights to servers; what failed, by the servers' index.

        Raises:
            EngineError: it failed for all of them.
        """
        ...

    async def again(self, link: Link, version: int) -> None:
        """Bring the weights of the last `deliver` to one server once more.

        Raises:
            EngineError: it failed, or the weights are not there any more.
        """
        ...

    def close(self) -> None:
        """Free what is kept. Closing twice is allowed."""
        ...
