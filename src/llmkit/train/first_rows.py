"""Training rows to look at before the first step, for adapters that begin from data."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from llmkit.data.collate import collate, micro_batches
from llmkit.distributed.world import world
from llmkit.models.packed import to_device
from llmkit.types import Batch, PreferencePair, Sample

T = TypeVar("T")


@runtime_checkable
class Drawn(Protocol):
    """Data that is drawn a step at a time and knows its place."""

    def next_step(self) -> Iterable[Any]: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def first_batches(data: Drawn, count: int, tokens_per_micro_batch: int, device: torch.device) -> list[Batch]:
    """Micro-batches of the steps that come next; the place in the data stays where it is.

    Args:
        data: draws samples or pairs; both sides of a pair are used.
        count: of micro-batches, at most: no more steps are drawn than that.
    """
    place = data.state_dict()
    batches: list[Batch] = []
    for _ in range(count):
        # Every process begins from the same rows, in the order of a run in one process.
        samples = list(_samples(interleave(world().gather_shares(list(data.next_step())))))
        batches += [to_device(collate(part), device) for part in micro_batches(samples, tokens_per_micro_batch)]
        if len(batches) >= count:
            break
    data.load_state_dict(place)
    return batches[:count]


def interleave(shares: Sequence[Sequence[T]]) -> list[T]:
    """The items of a step, of which every process has every n-th."""
    return [item for row in zip_longest(*shares, fillvalue=None) for item in row if item is not None]


def _samples(items: Iterable[Sample | PreferencePair]) -> Iterator[Sample]:
    for item in items:
        if isinstance(item, Sample):
            yield item
        else:
            yield from (item.chosen, item.rejected)
