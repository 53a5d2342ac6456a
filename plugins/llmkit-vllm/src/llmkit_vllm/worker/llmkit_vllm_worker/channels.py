"""The ways by which tensors come to a worker: files, a process group with the sender, the memory of a shared GPU."""

import base64
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

Message = Mapping[str, Any]
Named = Iterator[tuple[str, Tensor]]


class Channels:
    """Reads the tensors that a message speaks of."""

    def __init__(self, device: torch.device, rank: int) -> None:
        """Args:
        rank: of the worker in its server.
        """
        self._device = device
        self._rank = rank
        self._group: Any = None

    def connect(self, message: Message) -> dict[str, Any]:
        """Join the sender's process group: it is rank 0, this server's workers come after it."""
        before, self._group = self._group, None
        if before is not None:
            before.abort()
        self._group = open_group(message, 1 + self._rank)
        return {}

    def receive(self, message: Message) -> Named:
        """The tensors of one message."""
        kind = message["kind"]
        if kind == "file":
            return _from_file(message["path"])
        if kind == "group":
            return self._from_group(message)
        if kind == "cuda_ipc":
            return self._from_gpu(message)
        raise ValueError(f"no channel of the kind {kind!r}")

    def _from_group(self, message: Message) -> Named:
        if self._group is None:
            raise RuntimeError("there is no process group with the sender")
        buffer = torch.empty(message["num_bytes"], dtype=torch.uint8, device=self._device)
        self._group.broadcast(buffer, 0).wait()
        return _parts(buffer, message["tensors"])

    def _from_gpu(self, message: Message) -> Named:
        shared = open_shared(message["handle"])
        # The sender writes the next tensors to the same memory, and layers may wait for theirs until then.
        return _parts(shared[: message["num_bytes"]].to(self._device, copy=True), message["tensors"])


def open_group(message: Message, rank: int) -> Any:
    """A process group of the sender and one server's workers, apart from the server's own."""
    # What makes groups beside the default one is not in the public interface of torch.distributed.
    c10d: Any = torch.distributed.distributed_c10d
    dist: Any = torch.distributed
    timeout = timedelta(seconds=message["timeout_seconds"])
    name, size = message["name"], message["world_size"]
    store = dist.TCPStore(message["host"], message["port"], size, is_master=False, timeout=timeout)
    prefixed = dist.PrefixStore(name, store)
    backend = c10d.Backend(message["backend"])
    group, _ = c10d._new_process_group_helper(size, rank, [], backend, prefixed, group_name=name, timeout=timeout)
    return group


def open_shared(handle: Message) -> Tensor:
    """Bytes in the memory of a GPU that the sender has allocated.

    Raises:
        RuntimeError: this worker does not see that GPU.
    """
    from torch.multiprocessing.reductions import rebuild_cuda_tensor

    places = {str(torch.cuda.get_device_properties(i).uuid): i for i in range(torch.cuda.device_count())}
    if handle["gpu"] not in places:
        raise RuntimeError(f"the sender's GPU {handle['gpu']} is not visible here; use another sync.transport")
    return rebuild_cuda_tensor(
        Tensor,
        (handle["size"],),
        (1,),
        0,
        torch.UntypedStorage,
        torch.uint8,
        places[handle["gpu"]],
        base64.b64decode(handle["memory"]),
        handle["storage_size"],
        handle["storage_offset"],
        False,
        base64.b64decode(handle["counter"]),
        handle["counter_offset"],
        base64.b64decode(handle["event"]),
        handle["event_sync"],
    )


def _from_file(path: str) -> Named:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - the file is no mapping
            yield name, file.get_tensor(name)


def _parts(buffer: Tensor, tensors: list[Any]) -> Named:
    """The tensors that lie one after another in a buffer."""
    start = 0
    for name, kind, shape in tensors:
        dtype = getattr(torch, kind)
        end = start + torch.Size(shape).numel() * dtype.itemsize
        yield name, buffer[start:end].view(dtype).view(shape)
        start = end
