"""Packing as llmkit does it, and one length at a time in plain Python."""

from bisect import bisect_left, insort
from functools import partial
from typing import Any

from llmkit.bench.peers.serving import Answer, serve, timed


def prepare(settings: dict[str, Any]) -> dict[str, Any]:
    """Load the lengths."""
    import numpy as np

    from llmkit.data.packing import best_fit_decreasing

    lengths, small = np.load(settings["lengths"]), np.load(settings["small"])
    capacity: int = settings["capacity"]

    def ours(lengths: Any) -> Answer:
        seconds, bins = timed(lambda: best_fit_decreasing(lengths, capacity))
        return {"seconds": seconds, "num_bins": len(bins)}

    def python() -> Answer:
        as_list = small.tolist()
        seconds, bins = timed(lambda: pack_one_by_one(as_list, capacity))
        return {"seconds": seconds, "num_bins": len(bins)}

    return {"ours": partial(ours, lengths), "ours_small": partial(ours, small), "python": python}


def pack_one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit decreasing as it is told: longest first, each into the bin that it leaves the least room in.

    Args:
        lengths: none of them above `capacity`.
    Returns: item numbers of each bin.
    """
    bins: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # room and number of each bin, fullest first
    for item in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        place = bisect_left(rooms, (lengths[item], -1))
        if place < len(rooms):
            room, number = rooms.pop(place)
        else:
            room, number = capacity, len(bins)
            bins.append([])
        bins[number].append(item)
        insort(rooms, (room - lengths[item], number))
    return bins


if __name__ == "__main__":
    serve(prepare)
