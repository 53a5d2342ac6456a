"""Ways of buffers from the memory of this process into that of servers, without files."""

import asyncio
import base64
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.contract import Receiver
from llmkit.engines.inference.weight_sync.deadlines import describe
from llmkit.engines.inference.weight_sync.handover import Handover
from llmkit.engines.inference.weight_sync.process_groups import ServerGroup
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError


class Courier(Protocol):
    """Carries buffers to servers."""

    async def open(self, handover: Handover) -> None:
        """Make a way to one server, if there is none. What fails is the handover's failure."""
        ...

    def pack(self, buffer: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """The buffer where it is sent from, and what its message says besides the layout."""
        ...

    def note(self, link: Link) -> Mapping[str, Any]:
        """What the message to one server says besides."""
        ...

    async def send(self, link: Link, buffer: Tensor) -> None:
        """This process's part, while the server takes the buffer.

        Raises:
            EngineError: the server does not take it.
        """
        ...

    def forget(self, link: Link) -> None:
        """Give the way to one server up."""
        ...

    def close(self) -> None:
        """Give all ways up. Closing twice is allowed."""
        ...


class GroupCourier:
    """A process group with each server's workers: gloo, or nccl on GPUs."""

    def __init__(self, backend: str, host: str, receiver: Receiver, seconds: float) -> None:
        self._backend = backend
        self._host = host
        self._receiver = receiver
        self._seconds = seconds
        self._groups: dict[int, ServerGroup] = {}

    async def open(self, handover: Handover) -> None:
        """Both sides wait for one another, so both are asked at once."""
        link = handover.link
        if link.server.index in self._groups:
            return
        try:
            facts = await self._receiver.facts(link, self._seconds)
        except EngineError as error:
            handover.fail(error)
            return
        if self._backend == "nccl" and facts.device != "cuda":
            raise EngineError(f"joining a process group: {describe(link)} is on {facts.device}, and nccl needs GPUs")
        group = ServerGroup(self._backend, self._host, facts.num_workers, self._seconds)
        joining = asyncio.create_task(in_thread(group.join))
        await handover.connect(group.message)
        if handover.failure is not None:
            joining.cancel()
            return
        try:
            await joining
        except RuntimeError as error:
            handover.fail(EngineError(f"joining a process group: {describe(link)}: {error}"))
            return
        self._groups[link.server.index] = group

    def pack(self, buffer: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """As it is."""
        return buffer, {"kind": "group"}

    def note(self, link: Link) -> Mapping[str, Any]:
        """The name of its group."""
        return {"group": self._groups[link.server.index].message["name"]}

    async def send(self, link: Link, buffer: Tensor) -> None:
        """Broadcast."""
        try:
            await in_thread(self._groups[link.server.index].send, buffer)
        except RuntimeError as error:
            raise EngineError(f"sending weights: {describe(link)}: {error}") from error

    def forget(self, link: Link) -> None:
        """Leave the group."""
        group = self._groups.pop(link.server.index, None)
        if group is not None:
            group.close()

    def close(self) -> None:
        """Leave all groups."""
        for group in self._groups.values():
            group.close()
        self._groups.clear()


class CudaIpcCourier:
    """Lends the memory of a GPU that this process and the servers' workers share."""

    def __init__(self) -> None:
        self._buffer: Tensor | None = None

    async def open(self, handover: Handover) -> None:
        """There is nothing to make: the handle comes with each message."""

    def pack(self, buffer: Tensor) -> tuple[Tensor, Mapping[str, Any]]:
        """A copy in memory that stays the same one, so that servers need not open new memory for each message."""
        if self._buffer is None or self._buffer.numel() < buffer.numel():
            self._buffer = torch.empty_like(buffer)
        self._buffer[: buffer.numel()].copy_(buffer)
        torch.cuda.synchronize(buffer.device)
        return self._buffer, {"kind": "cuda_ipc", "handle": ipc_handle(self._buffer)}

    def note(self, link: Link) -> Mapping[str, Any]:
        """Nothing."""
        return {}

    async def send(self, link: Link, buffer: Tensor) -> None:
        """The server copies it by itself."""

    def forget(self, link: Link) -> None:
        """The server holds nothing."""

    def close(self) -> None:
        """Free the memory."""
        self._buffer = None


def ipc_handle(buffer: Tensor) -> dict[str, Any]:
    """What another process needs to open bytes in a GPU's memory, as JSON can hold it: numbers and base64."""
    storage: Any = buffer.untyped_storage()
    _, memory, size, offset, counter, counter_offset, event, event_sync = storage._share_cuda_()
    return {
        "gpu": str(torch.cuda.get_device_properties(buffer.device).uuid),
        "size": buffer.numel(),
        "memory": base64.b64encode(memory).decode(),
        "storage_size": size,
        "storage_offset": offset,
        "counter": base64.b64encode(counter).decode(),
        "counter_offset": counter_offset,
        "event": base64.b64encode(event).decode(),
        "event_sync": event_sync,
    }
