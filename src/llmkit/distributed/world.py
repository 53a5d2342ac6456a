"""The processes of a run: who they are, and what they tell one another."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from llmkit.config.parallel import ParallelConfig
from llmkit.distributed.dimensions import Dimensions, find_dimensions
from llmkit.distributed.place import Place, find_place
from llmkit.errors import LLMKitError, ProcessLostError

S = TypeVar("S")
T = TypeVar("T")
MESH_NAMES = ("replicate", "shard", "tensor")
LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "timed out", "socket", "gloo", "nccl")
"""Words of the errors that collectives raise when another process has gone."""


@dataclass(frozen=True)
class World:
    """The processes of this run. One that is alone has a world too, whose collectives give back what they get.

    Attributes:
        place: of this process.
        dimensions: of the mesh.
        mesh: `replicate` x `shard` x `tensor`; None for a process that is alone.
        writers: group in which checkpoints are written in the background.
    """

    place: Place = field(default_factory=Place)
    dimensions: Dimensions = field(default_factory=Dimensions)
    mesh: DeviceMesh | None = None
    writers: Any = None

    @property
    def is_main(self) -> bool:
        """Whether this process writes and talks."""
        return self.place.is_main

    @property
    def size(self) -> int:
        """All processes."""
        return self.place.world_size

    @property
    def data_size(self) -> int:
        """Shares that each step is divided into."""
        return self.dimensions.data

    @property
    def data_rank(self) -> int:
        """Which of the shares is this process's."""
        return self.place.rank // self.dimensions.tensor

    def group(self, name: str) -> Any:
        """This process's group of one dimension of the mesh."""
        assert self.mesh is not None
        return self.mesh[name].get_group()

    def sum(self, values: Sequence[float]) -> list[float]:
        """Each number added up over the shares of a step."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def max(self, value: float) -> float:
        """The greatest of the shares' numbers."""
        return self._reduced([value], dist.ReduceOp.MAX)[0]

    def sum_metrics(self, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics that are sums over rows, over the rows of all shares; a share without rows may lack their names."""
        if self.data_size == 1:
            return metrics
        parts = self.gather_shares(metrics)
        names = dict.fromkeys(name for part in parts for name in part)
        return {name: sum(part.get(name, 0.0) for part in parts) for name in names}

    def gather(self, value: T) -> list[T]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        with _losses():
            dist.all_gather_object(found, value)
        return found

    def gather_shares(self, value: T) -> list[T]:
        """The value of every share, in order."""
        return self.gather(value)[:: self.dimensions.tensor]

    def broadcast(self, value: T) -> T:
        """The main process's value."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with _losses():
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def on_main(self, action: Callable[[], T]) -> T:
        """What `action` gives in the main process, which alone does it, in all of them.

        Raises:
            Exception: what it raises there, in all of them.
        """
        found: Any = None
        with self.agreeing():
            found = action() if self.is_main else None
        return self.broadcast(found)

    def agree(self, error: Exception | None) -> None:
        """Raise in all processes what one of them has met; the first by rank.

        Raises:
            Exception: the error.
        """
        errors = self.gather(None if error is None else _portable(error)) if self.size > 1 else [error]
        first = next((rank for rank, one in enumerate(errors) if one is not None), None)
        if first is None:
            return
        if first == self.place.rank and error is not None:
            raise error
        found = errors[first]
        assert found is not None
        raise found

    @contextmanager
    def agreeing(self) -> Iterator[None]:
        """What goes wrong in the block of one process is raised at its end in all of them.

        Raises:
            Exception: the first by rank.
        """
        met: Exception | None = None
        try:
            yield
        except ProcessLostError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below, everywhere
            met = error
        self.agree(met)

    @asynccontextmanager
    async def agreeing_aside(self) -> AsyncIterator[None]:
        """The same in a coroutine, whose event loop goes on while it waits for the others.

        Raises:
            Exception: the first by rank.
        """
        met: Exception | None = None
        try:
            yield
        except ProcessLostError:
            raise
        except Exception as error:  # noqa: BLE001 - raised below, everywhere
            met = error
        await self.aside(self.agree, met)

    async def aside(self, collective: Callable[[S], T], value: S) -> T:
        """A collective in a coroutine, whose event loop goes on while it waits for the others."""
        return collective(value) if self.size == 1 else await asyncio.to_thread(collective, value)

    def all_arrive(self, name: str, seconds: float) -> bool:
        """Whether every process comes to the point of this name in time; for when collectives cannot be trusted."""
        if self.size == 1:
            return True
        try:
            store = dist.distributed_c10d._get_default_store()
            store.set(f"llmkit/{name}/{self.place.rank}", "here")
            store.wait([f"llmkit/{name}/{rank}" for rank in range(self.size)], timedelta(seconds=seconds))
        except (RuntimeError, dist.DistError):
            return False
        return True

    def tell_writers(self, value: T) -> T:
        """The main process's value, in the group that writes checkpoints in the background."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with _losses():
            dist.broadcast_object_list(box, src=0, group=self.writers)
        return box[0]

    def _reduced(self, values: Sequence[float], operation: Any) -> list[float]:
        if self.data_size == 1:
            return list(values)
        # Each share is there once for each process of the tensor dimension: these have a group of their own.
        shares = self.gather_shares([float(value) for value in values])
        reduce = sum if operation == dist.ReduceOp.SUM else max
        return [float(reduce(column)) for column in zip(*shares, strict=True)]


_present = World()


def world() -> World:
    """The processes of the run that this process is in."""
    return _present


@contextmanager
def joined(config: ParallelConfig, device: torch.device) -> Iterator[World]:
    """Within it this process belongs to the run's world; a process that is alone has nothing to join.

    Args:
        device: a kind of device; with GPUs, the process takes the one of its own number.

    Raises:
        ConfigError: the processes do not fit the mesh.
        ProcessLostError: another process cannot be reached.
    """
    global _present
    place = find_place()
    dimensions = find_dimensions(config, place.world_size)
    if place.world_size == 1 and not dimensions.is_sharded:
        yield _present
        return
    try:
        _present = _join(config, place, dimensions, device)
        yield _present
    finally:
        _present = World()
        with suppress(Exception):
            dist.destroy_process_group()


def _join(config: ParallelConfig, place: Place, dimensions: Dimensions, device: torch.device) -> World:
    if device.type == "cuda":
        torch.cuda.set_device(place.local_rank)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    # FSDP2 in one process divides nothing, and may still keep weights in the CPU's memory.
    alone: dict[str, Any] = {"store": HashStore(), "rank": 0, "world_size": 1} if place.world_size == 1 else {}
    with _losses():
        dist.init_process_group(backend, timeout=timedelta(seconds=config.timeout_seconds), **alone)
        sizes = (dimensions.replicate, dimensions.shard, dimensions.tensor)
        mesh = init_device_mesh(device.type, sizes, mesh_dim_names=MESH_NAMES)
        writers = dist.new_group(backend="gloo", timeout=timedelta(seconds=config.timeout_seconds))
    return World(place, dimensions, mesh, writers)


@contextmanager
def _losses() -> Iterator[None]:
    """Say in words that another process has gone.

    Raises:
        ProcessLostError: it has.
    """
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if not is_loss(error):
            raise
        raise ProcessLostError(
            "another process of this run has ended or does not answer, so this one cannot go on; its own error is the "
            "one to look at. Go on with --resume"
        ) from error


def is_loss(error: BaseException) -> bool:
    """Whether an error is that of a collective whose other side has gone."""
    if isinstance(error, LLMKitError):
        return isinstance(error, ProcessLostError)
    text = str(error).lower()
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(word in text for word in LOST))


def _portable(error: Exception) -> Exception:
    """The error as it can be sent to another process."""
    if isinstance(error, LLMKitError):
        return type(error)(*error.args)
    return RuntimeError(f"{type(error).__name__}: {error}")


def all_reduce(tensor: Tensor, group: Any = None) -> None:
    """Add up a tensor over a group, in place."""
    with _losses():
        dist.all_reduce(tensor, group=group)
