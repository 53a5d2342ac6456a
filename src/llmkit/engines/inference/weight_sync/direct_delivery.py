"""Weights from the memory of this process into that of servers, bucket by bucket, without files."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace

import torch
from torch import Tensor

from llmkit.engines.inference.remote.contract import Link
from llmkit.engines.inference.weight_sync.buckets import buckets
from llmkit.engines.inference.weight_sync.contract import Parcel, Receiver
from llmkit.engines.inference.weight_sync.couriers import Courier
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.fingerprints import fingerprint
from llmkit.engines.inference.weight_sync.flat_buffers import flatten, layout, ordered
from llmkit.engines.inference.weight_sync.handover import Handover, Terms, all_of, failures_of, wire_dtype
from llmkit.engines.inference.weight_sync.policy_weights import PolicyWeights
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError


class DirectDelivery:
    """Sends buffers by a courier. Nothing stays here: what was sent can be sent again while the policy is the same."""

    adapter: str | None = None

    def __init__(
        self, weights: PolicyWeights, receiver: Receiver, courier: Courier, terms: Terms, device: torch.device
    ) -> None:
        """Args:
        device: where buffers are sent from.
        """
        self._weights = weights
        self._receiver = receiver
        self._courier = courier
        self._terms = terms
        self._device = device
        self._sent: dict[str, str] = {}

    async def deliver(self, links: Sequence[Link], version: int) -> dict[int, EngineError]:
        """See `Delivery`."""
        self._sent = {}
        handovers, sent = await self._run(links, version)
        self._sent = sent
        return failures_of(handovers)

    async def again(self, link: Link, version: int) -> None:
        """See `Delivery`. The way is made anew: it may lead to a server that is not there any more."""
        if not self._sent:
            raise EngineError(f"{describe(link)}: there are no weights of an update that has ended well")
        self._courier.forget(link)
        [handover], _ = await self._run([link], version, expected=self._sent)
        if handover.failure is not None:
            raise handover.failure

    def close(self) -> None:
        """Give all ways up."""
        self._sent = {}
        self._courier.close()

    async def _run(
        self, links: Sequence[Link], version: int, expected: dict[str, str] | None = None
    ) -> tuple[list[Handover], dict[str, str]]:
        """One try.

        Args:
            expected: fingerprints that the weights must have.
        """
        dtype = await wire_dtype(self._terms, self._receiver, links)
        handovers = [Handover(self._receiver, link, version, self._terms.seconds) for link in links]
        sent: dict[str, str] = {}
        try:
            await all_of(self._courier.open(one) for one in handovers)
            await all_of(one.begin() for one in handovers)
            async with aclosing(self._parcels(dtype)) as parcels:
                async for parcel, sums, buffer in parcels:
                    if expected is not None and any(expected[name] != value for name, value in sums.items()):
                        raise EngineError(
                            "the policy has changed since the last update, whose weights were not kept; the next "
                            "update brings them, or use engine.sync.transport=shared_memory, which keeps them"
                        )
                    # One after another: collectives of several groups must not overlap on one device.
                    for one in handovers:
                        await self._hand_over(one, parcel, buffer)
                    sent |= sums
            await all_of(one.commit() for one in handovers)
        except BaseException:
            await all_of(one.abort() for one in handovers)
            for link in links:
                self._courier.forget(link)
            raise
        return handovers, sent

    async def _hand_over(self, handover: Handover, parcel: Parcel, buffer: Tensor) -> None:
        """Both sides at once: the server takes what this process sends."""
        if handover.failure is not None:
            return
        sending = asyncio.create_task(self._courier.send(handover.link, buffer))
        await handover.put(replace(parcel, message={**parcel.message, **self._courier.note(handover.link)}))
        if handover.failure is not None:
            # What waits in the group gets an error when it is left.
            self._courier.forget(handover.link)
        try:
            await sending
        except EngineError as error:
            if handover.failure is None:
                handover.fail(error)
                await handover.abort()
            self._courier.forget(handover.link)

    async def _parcels(self, dtype: torch.dtype | None) -> AsyncGenerator[tuple[Parcel, dict[str, str], Tensor]]:
        """Parcels with all fingerprints and the buffer to send."""
        made = self._make(dtype)
        while True:
            async with deadline("gathering weights", self._terms.seconds):
                found = await in_thread(next, made, None)
            if found is None:
                return
            yield found

    def _make(self, dtype: torch.dtype | None) -> Iterator[tuple[Parcel, dict[str, str], Tensor]]:
        for bucket in buckets(self._weights.tensors(dtype), self._terms.bucket_bytes):
            tensors = ordered(bucket)
            sums = {name: fingerprint(tensor) for name, tensor in tensors}
            buffer, message = self._courier.pack(flatten(tensors, self._device))
            size = sum(tensor.nbytes for _, tensor in tensors)
            message = {**message, "tensors": layout(tensors), "num_bytes": size}
            yield Parcel([name for name, _ in tensors], sums if self._terms.compares else {}, message), sums, buffer
