"""The weights of servers as one state: all of one version, or unknown."""

import asyncio
import logging
import time
from collections.abc import Sequence

from llmkit.config.weight_sync import WeightSyncConfig
from llmkit.engines.inference.remote.contract import Dialect, Link
from llmkit.engines.inference.weight_sync.contract import Delivery, PhaseTimeoutError, Receiver
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.parity import ParityProbe
from llmkit.errors import EngineError

logger = logging.getLogger(__name__)


class ServerWeightSync:
    """Implements `WeightSync` by a delivery; see there."""

    def __init__(
        self,
        delivery: Delivery,
        receiver: Receiver,
        dialect: Dialect,
        probe: ParityProbe | None,
        config: WeightSyncConfig,
    ) -> None:
        """Args:
        probe: compares servers with the policy; None compares nothing.
        """
        self._delivery = delivery
        self._receiver = receiver
        self._dialect = dialect
        self._probe = probe
        self._config = config
        self._version: int | None = None
        self._num_updates = 0
        self._is_verified = False

    @property
    def adapter(self) -> str | None:
        """See `WeightSync`."""
        return self._delivery.adapter

    async def update(self, links: Sequence[Link], version: int) -> None:
        """See `WeightSync`. A server that fails, but not by taking too long, gets the weights once more."""
        self._version = None
        start = time.monotonic()
        failures = await self._delivery.deliver(links, version)
        for link in links:
            failure = failures.pop(link.server.index, None)
            if failure is not None:
                await self._once_more(link, version, failure)
        await self._settle(links, version)
        self._version = version
        self._num_updates += 1
        logger.info("weights of version %d are on %d servers (%.2f s)", version, len(links), time.monotonic() - start)

    async def verify(self, links: Sequence[Link], version: int) -> None:
        """See `WeightSync`: after the first update, and then after every `probe_every` of them."""
        if self._probe is None or self._version is None:
            return
        every = self._config.probe_every
        if self._is_verified and (every == 0 or self._num_updates % every):
            return
        try:
            await self._probe.compare(links, version, self.adapter)
        except BaseException:
            self._version, self._is_verified = None, False
            raise
        self._is_verified = True

    async def restore(self, link: Link) -> None:
        """See `WeightSync`."""
        if self._num_updates == 0:
            return
        if self._version is None:
            raise EngineError(f"{describe(link)}: the last update of its weights failed; the next one brings it back")
        await self._delivery.again(link, self._version)
        await self._settle([link], self._version)

    def close(self) -> None:
        """See `WeightSync`."""
        self._delivery.close()

    async def _once_more(self, link: Link, version: int, failure: EngineError) -> None:
        """
        Raises:
            EngineError: it failed again, or the server may be busy with the first try still.
        """
        if isinstance(failure, PhaseTimeoutError):
            raise failure
        logger.warning("%s; trying once more", failure)
        try:
            await self._delivery.again(link, version)
        except EngineError as error:
            raise error from failure

    async def _settle(self, links: Sequence[Link], version: int) -> None:
        """What follows from new weights: their version, and no cache that is older."""
        seconds = self._config.timeout_seconds

        async def settle(link: Link) -> None:
            async with deadline("stamping a version", seconds, link):
                await self._receiver.stamp(link, version, seconds)
            async with deadline("dropping cached prefixes", seconds, link):
                await self._dialect.drop_caches(link)

        await asyncio.gather(*(settle(link) for link in links))
