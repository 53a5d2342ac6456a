"""A process group of this process, which is rank 0, and the workers of one server."""

import uuid
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
from torch import Tensor

# Processes that are no part of this run's own group; neither is in the public interface of torch.distributed.
c10d: Any = torch.distributed.distributed_c10d


class ServerGroup:
    """Made in three steps, since servers must know the address before this process can wait for them.

    Attributes:
        message: what a server needs to join.
    """

    def __init__(self, backend: str, host: str, num_workers: int, seconds: float) -> None:
        """Args:
        host: address of this machine at which servers reach it.
        """
        self._timeout = timedelta(seconds=seconds)
        self._store = torch.distributed.TCPStore(  # type: ignore[attr-defined]
            host, 0, 1 + num_workers, is_master=True, timeout=self._timeout, wait_for_workers=False
        )
        self._group: Any = None
        self.message = {
            "backend": backend,
            "host": host,
            "port": self._store.port,
            "name": f"llmkit-{uuid.uuid4().hex}",
            "world_size": 1 + num_workers,
            "timeout_seconds": seconds,
        }

    def join(self) -> None:
        """Wait until all are there.

        Raises:
            RuntimeError: they are not, within the time.
        """
        self._group = join(self._store, self.message, 0, self._timeout)

    def send(self, buffer: Tensor) -> None:
        """Broadcast bytes to the workers; returns when they are on their way.

        Raises:
            RuntimeError: a worker has gone, or took longer than the time.
        """
        self._group.broadcast(buffer, 0).wait()
        if buffer.is_cuda:
            torch.cuda.synchronize(buffer.device)

    def close(self) -> None:
        """Leave the group; whoever waits in it gets an error."""
        group, self._group = self._group, None
        if group is not None:
            group.abort()
            c10d._world.pg_group_ranks.pop(group, None)


def join(store: Any, message: dict[str, Any], rank: int, timeout: timedelta) -> Any:
    """A process group beside the default one, or without one."""
    name = message["name"]
    prefixed = c10d.PrefixStore(name, store)
    group, _ = c10d._new_process_group_helper(
        message["world_size"], rank, [], c10d.Backend(message["backend"]), prefixed, group_name=name, timeout=timeout
    )
    return group
