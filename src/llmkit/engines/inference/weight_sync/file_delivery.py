"""Weights as safetensors files, in shared memory or on a disk, which servers of the same machine read."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from llmkit.disk import write_failure
from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.buckets import buckets
from llmkit.engines.inference.weight_sync.contract import Parcel, Receiver
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.fingerprints import fingerprint
from llmkit.engines.inference.weight_sync.handover import Handover, Terms, all_of, failures_of, wire_dtype
from llmkit.engines.inference.weight_sync.places import WeightsPlace
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError

LOCAL = ("127.0.0.1", "localhost", "::1")


class FileDelivery:
    """Writes all weights as a checkpoint of several files; servers read one while the next is written.

    The files stay until the next update: a server that is started again gets the same weights from them.
    """

    adapter: str | None = None

    def __init__(
        self, weights: PolicyWeights, receiver: Receiver, place: WeightsPlace, terms: Terms, *, must_be_local: bool
    ) -> None:
        """Args:
        must_be_local: whether servers of other machines cannot see the place.
        """
        self._weights = weights
        self._receiver = receiver
        self._place = place
        self._terms = terms
        self._must_be_local = must_be_local
        self._parcels: list[Parcel] = []
        self._directory: Path | None = None

    async def deliver(self, links: Sequence[Link], version: int) -> dict[int, EngineError]:
        """See `Delivery`."""
        if self._must_be_local:
            check_local(links)
        self._parcels, self._directory = [], None
        dtype = await wire_dtype(self._terms, self._receiver, links)
        self._place.check_room(self._weights.num_bytes(dtype))
        directory = self._place.renew()
        handovers = [self._handover(link, version, directory) for link in links]
        try:
            await all_of(one.begin() for one in handovers)
            async with aclosing(self._write(directory, dtype)) as parcels:
                async for parcel in parcels:
                    await all_of(one.put(parcel) for one in handovers)
                    self._parcels.append(parcel)
            await all_of(one.commit() for one in handovers)
        except BaseException:
            await all_of(one.abort() for one in handovers)
            raise
        self._directory = directory
        return failures_of(handovers)

    async def again(self, link: Link, version: int) -> None:
        """See `Delivery`."""
        if self._directory is None:
            raise EngineError(f"{describe(link)}: there are no weights of an update that has ended well")
        handover = self._handover(link, version, self._directory)
        try:
            await handover.begin()
            for parcel in self._parcels:
                await handover.put(parcel)
            await handover.commit()
        except BaseException:
            await handover.abort()
            raise
        if handover.failure is not None:
            raise handover.failure

    def close(self) -> None:
        """Remove the files."""
        self._parcels, self._directory = [], None
        self._place.remove()

    def _handover(self, link: Link, version: int, directory: Path) -> Handover:
        return Handover(self._receiver, link, version, self._terms.seconds, directory)

    async def _write(self, directory: Path, dtype: torch.dtype | None) -> AsyncGenerator[Parcel]:
        """Parcels, each when its file is whole; the next file is under way meanwhile."""
        files = self._files(directory, dtype)
        coming = asyncio.create_task(in_thread(next, files, None))
        try:
            while True:
                async with deadline("writing weights", self._terms.seconds):
                    parcel = await coming
                if parcel is None:
                    return
                coming = asyncio.create_task(in_thread(next, files, None))
                yield parcel
        finally:
            coming.cancel()

    def _files(self, directory: Path, dtype: torch.dtype | None) -> Iterator[Parcel]:
        for number, bucket in enumerate(buckets(self._weights.tensors(dtype), self._terms.bucket_bytes)):
            path = directory / f"model-{number:05d}.safetensors"
            tensors = {name: tensor.to("cpu").contiguous() for name, tensor in bucket}
            sums = {name: fingerprint(tensor) for name, tensor in tensors.items()} if self._terms.compares else {}
            try:
                save_file(tensors, path, metadata={"format": "pt"})
            except (OSError, SafetensorError) as error:
                raise EngineError(f"writing weights: {write_failure(path, error)}") from error
            # Umask may be stricter than what servers of another user need.
            path.chmod(0o644)
            yield Parcel(list(tensors), sums, {"kind": "file", "path": str(path)})


def check_local(links: Sequence[Link]) -> None:
    """Refuse servers that do not see the files of this machine.

    Raises:
        EngineError: names the server.
    """
    for link in links:
        if urlsplit(link.server.url).hostname not in LOCAL:
            raise EngineError(
                f"sending weights: {describe(link)} is not on this machine and sees no files of it; name a directory "
                "that both see with engine.sync.directory and engine.sync.transport=disk, or use nccl or gloo"
            )
