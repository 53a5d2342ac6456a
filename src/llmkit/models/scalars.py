"""Numbers that a device has computed, read together: each reading waits for the device."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


def read_scalars(values: Sequence[Tensor]) -> list[float]:
    """The numbers in [] tensors, in float32; each device is waited for once."""
    places: dict[torch.device, list[int]] = {}
    for place, value in enumerate(values):
        places.setdefault(value.device, []).append(place)
    found = [0.0] * len(values)
    for chosen in places.values():
        numbers = torch.stack([values[place].detach().float() for place in chosen]).tolist()
        for place, number in zip(chosen, numbers, strict=True):
            found[place] = number
    return found


class Sums:
    """Adds up metrics of micro-batches, which are read when all of them are there."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """Add the sum of each metric's values."""
        for name, values in metrics.items():
            self._parts.setdefault(name, []).append(values.detach().sum())

    def read(self) -> dict[str, float]:
        """The sums, by name."""
        numbers = iter(read_scalars([part for parts in self._parts.values() for part in parts]))
        return {name: sum(next(numbers) for _ in parts) for name, parts in self._parts.items()}
