"""The policy's LoRA alone: servers keep it beside the base model, which never travels."""

import asyncio
from collections.abc import Sequence

from safetensors import SafetensorError

from llmkit.disk import write_failure
from llmkit.engines.inference.remote.contract import Dialect, Link
from llmkit.engines.inference.weight_sync.adapter_weights import write_adapter
from llmkit.engines.inference.weight_sync.deadlines import deadline, describe
from llmkit.engines.inference.weight_sync.file_delivery import check_local
from llmkit.engines.inference.weight_sync.handover import Terms
from llmkit.engines.inference.weight_sync.places import WeightsPlace
from llmkit.engines.inference.weight_sync.threads import in_thread
from llmkit.errors import EngineError, RequestError
from llmkit.models.policy import Policy

NAME = "llmkit-policy"
"""The adapter's name on the servers."""


class AdapterDelivery:
    """Writes the adapter as PEFT does and lets servers load it in the place of the one before."""

    def __init__(
        self, policy: Policy, dialect: Dialect, place: WeightsPlace, terms: Terms, *, must_be_local: bool
    ) -> None:
        self._policy = policy
        self._dialect = dialect
        self._place = place
        self._terms = terms
        self._must_be_local = must_be_local
        self._has_delivered = False

    @property
    def adapter(self) -> str | None:
        """Its name, once servers have it."""
        return NAME if self._has_delivered else None

    async def deliver(self, links: Sequence[Link], version: int) -> dict[int, EngineError]:
        """See `Delivery`."""
        if self._must_be_local:
            check_local(links)
        async with deadline("writing an adapter", self._terms.seconds):
            await in_thread(self._write)
        results = await asyncio.gather(*(self._load(link) for link in links), return_exceptions=True)
        failures: dict[int, EngineError] = {}
        for link, result in zip(links, results, strict=True):
            if isinstance(result, EngineError):
                failures[link.server.index] = result
            elif result is not None:
                raise result
        self._has_delivered = not failures
        return failures

    async def again(self, link: Link, version: int) -> None:
        """See `Delivery`; the files are there until the next update."""
        await self._load(link)
        self._has_delivered = True

    def close(self) -> None:
        """Remove the files."""
        self._place.remove()

    def _write(self) -> None:
        directory = self._place.renew()
        try:
            write_adapter(self._policy, directory, self._terms.dtype)
        except (OSError, SafetensorError) as error:
            raise EngineError(f"writing an adapter: {write_failure(directory, error)}") from error

    async def _load(self, link: Link) -> None:
        async with deadline("loading an adapter", self._terms.seconds, link):
            try:
                await self._dialect.load_adapter(link, NAME, self._place.path, replace=True)
            except RequestError as error:
                raise EngineError(f"loading an adapter: {describe(link)} refuses it: {error}") from error
