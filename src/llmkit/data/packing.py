"""Which items come together: bins of at most so many tokens, or groups of similar length. Numbers only, no tokens."""

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

MEGA_BATCH = 50
"""Groups whose items are sorted by length together: similar lengths meet, and yet every epoch mixes them anew."""


@dataclass(frozen=True, slots=True)
class Bins:
    """Item numbers, grouped.

    Attributes:
        items: [N] int64 item numbers, bin after bin.
        ends: [B] int64 exclusive ends; bin b is `items[ends[b - 1]:ends[b]]`.
    """

    items: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, bin_of_item: np.ndarray, num_bins: int) -> "Bins":
        """Bins in the order of their numbers, none of them empty; in each, items in the order of theirs.

        Args:
            bin_of_item: [N] which bin each item is in, from 0.
            num_bins: one more than the greatest of them.
        """
        return cls(stable_order(bin_of_item), np.cumsum(np.bincount(bin_of_item, minlength=num_bins)))

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.ends)

    def __iter__(self) -> Iterator[np.ndarray]:
        """The item numbers of each bin."""
        return (self.between(b, b + 1) for b in range(len(self)))

    @property
    def starts(self) -> np.ndarray:
        """[B] where each bin begins in `items`."""
        return self.ends - self.sizes

    @property
    def sizes(self) -> np.ndarray:
        """[B] items of each bin."""
        return np.diff(self.ends, prepend=0)

    def between(self, first: int, stop: int) -> np.ndarray:
        """Item numbers of the bins from `first` up to and without `stop`."""
        start = self.ends[first - 1] if first else 0
        return self.items[start : self.ends[stop - 1]] if stop > first else self.items[:0]

    def reordered(self, order: np.ndarray) -> "Bins":
        """The same bins, bin `order[0]` first."""
        sizes = self.sizes[order]
        return Bins(self.items[ranges(self.starts[order], sizes)], np.cumsum(sizes))

    def totals(self, lengths: np.ndarray) -> np.ndarray:
        """[B] sum over each bin of `lengths`, which are by item number."""
        return np.diff(np.cumsum(lengths[self.items])[self.ends - 1], prepend=0)


def best_fit_decreasing(lengths: np.ndarray, capacity: int) -> Bins:
    """Pack items into few bins: longest first, each into the fullest bin that has room for it.

    Works on the histogram of lengths and of free room: items of one length go into bins of one free room all at once.
    The result is that of placing items one by one, equal lengths by item number and equal rooms by bin number.

    Args:
        lengths: [N] tokens of each item, at least 1.
        capacity: tokens of a bin; an item with more stands alone.
    Returns: every item exactly once; bins in the order in which they were opened.
    Raises: ValueError if an item has no token, or a bin no room.
    """
    if capacity < 1 or (len(lengths) and lengths.min() < 1):
        raise ValueError(f"best_fit_decreasing needs lengths and a capacity of at least 1, got capacity={capacity}")
    if not len(lengths):
        return Bins(np.empty(0, np.int64), np.empty(0, np.int64))
    by_length = stable_order(lengths.max() - lengths)
    room = _Room(capacity)
    for length, count in _runs(lengths[by_length]):
        room.place(length, count)
    bin_of_item = np.empty(len(lengths), np.int64)
    bin_of_item[by_length] = room.bins_in_order_of_placing()
    return Bins.of(bin_of_item, room.num_bins)


def length_groups(lengths: np.ndarray, group_size: int, max_tokens: int | None = None) -> Bins:
    """Group items of similar length, as the field does it: sorted within mega-batches, then cut.

    Args:
        lengths: [N] tokens of each item; items should be in random order, which decides the mega-batches.
        group_size: items of a group; the last group may have fewer.
        max_tokens: most tokens of a group, in place of a number of items; an item with more stands alone.
    Returns: every item exactly once; in each group, the items in the order of their numbers.
    """
    if not len(lengths):
        return Bins(np.empty(0, np.int64), np.empty(0, np.int64))
    if max_tokens is not None:
        group_size = max(1, round(max_tokens / float(lengths.mean())))
    # With few groups, smaller mega-batches: else all items would be sorted together, the same way in every epoch.
    num_groups = max(1, min(MEGA_BATCH, len(lengths) // (4 * group_size)))
    mega_batch = np.arange(len(lengths)) // (num_groups * group_size)
    # Down in one and up in the next, so that a group which crosses from one to the next is of similar lengths too.
    by_length = np.lexsort((np.where(mega_batch % 2, lengths, -lengths), mega_batch))
    if max_tokens is None:
        group_of_sorted = np.arange(len(lengths)) // group_size
    else:
        group_of_sorted = np.repeat(*_cuts_by_tokens(lengths[by_length], max_tokens))
    group_of_item = np.empty(len(lengths), np.int64)
    group_of_item[by_length] = group_of_sorted
    return Bins.of(group_of_item, int(group_of_sorted[-1]) + 1)


def step_ends(lengths: np.ndarray, max_tokens: int) -> np.ndarray:
    """[N] where a step that begins with item n ends: before the item that no longer fits, and after one item at least.

    Args:
        lengths: [N] tokens of each item, in the order in which they are drawn.
        max_tokens: most tokens of a step.
    """
    totals = np.cumsum(lengths)
    fits = np.searchsorted(totals, totals - lengths + max_tokens, side="right")
    return np.maximum(fits, np.arange(1, len(lengths) + 1))


def count_steps(totals: Iterable[np.ndarray], max_tokens: int) -> int:
    """How many steps several epochs make, when a step takes as many items as fit and may cross from one to the next.

    Args:
        totals: for each epoch, [N] tokens up to the end of each item, in the order in which they are drawn.
        max_tokens: most tokens of a step.
    """
    num_steps = tokens_of_last = 0
    for epoch in totals:
        ends = step_ends(np.diff(epoch, prepend=0), max_tokens).tolist()
        # The last step of the epoch before goes on here.
        item = int(np.searchsorted(epoch, max_tokens - tokens_of_last, side="right")) if num_steps else 0
        before = -tokens_of_last
        while item < len(ends):
            num_steps += 1
            before = int(epoch[item - 1]) if item else 0
            item = ends[item]
        tokens_of_last = int(epoch[-1]) - before
    return num_steps


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """[sum of sizes] the numbers `starts[0]`, `starts[0] + 1`, ... of each range, one range after the other."""
    before = np.cumsum(sizes) - sizes
    return np.arange(sizes.sum()) + np.repeat(starts - before, sizes)


def stable_order(values: np.ndarray) -> np.ndarray:
    """[N] the numbers of `values` (whole, from 0) from the smallest to the greatest; equal ones in their order."""
    greatest = int(values.max()) if len(values) else 0
    # NumPy sorts 16 bits in linear time; so do two rounds of it, the low bits first.
    order = np.argsort((values & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, greatest.bit_length(), 16):
        digits = ((values >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digits[order], kind="stable")]
    return order


class _Room:
    """Free room of the bins: for each amount, which bins have it, as ranges of bin numbers."""

    def __init__(self, capacity: int) -> None:
        self.num_bins = 0
        self._capacity = capacity
        self._amounts: list[int] = []
        self._ranges: dict[int, list[tuple[int, int]]] = {}
        # What was placed, in order: bins [first, stop) got `each` items, one bin after the other.
        self._placed: list[tuple[int, int, int]] = []

    def place(self, length: int, count: int) -> None:
        """Put `count` items of one length into bins; no shorter item was placed before."""
        while count:
            at = bisect_left(self._amounts, length)
            if at == len(self._amounts):
                self._open(length, count)
                return
            amount = self._amounts[at]
            ranges = self._ranges[amount]
            first, stop = heapq.heappop(ranges)
            if not ranges:
                del self._ranges[amount], self._amounts[at]
            # A bin that gets one item is then the tightest fit for the next, until its room is less than the length.
            each = amount // length
            used, count = self._fill(first, stop, amount, length, count, each)
            if used < stop:
                self._add(amount, used, stop)

    def bins_in_order_of_placing(self) -> np.ndarray:
        """[N] bin of each item, in the order in which they were placed."""
        first, stop, each = np.array(self._placed, np.int64).T
        return np.repeat(ranges(first, stop - first), np.repeat(each, stop - first))

    def _open(self, length: int, count: int) -> None:
        each = max(1, self._capacity // length)
        first = self.num_bins
        self.num_bins += -(-count // each)
        self._fill(first, self.num_bins, self._capacity, length, count, each)

    def _fill(self, first: int, stop: int, room: int, length: int, count: int, each: int) -> tuple[int, int]:
        """Put `each` items into every bin of [first, stop), as long as there are items.

        Returns: the first bin that got none, and the items that are left.
        """
        full = min(stop - first, count // each)
        if full:
            self._placed.append((first, first + full, each))
            self._add(room - each * length, first, first + full)
            first, count = first + full, count - full * each
        if count and first < stop:
            self._placed.append((first, first + 1, count))
            self._add(room - count * length, first, first + 1)
            first, count = first + 1, 0
        return first, count

    def _add(self, amount: int, first: int, stop: int) -> None:
        if amount < 1:
            return
        if amount not in self._ranges:
            self._ranges[amount] = []
            insort(self._amounts, amount)
        heapq.heappush(self._ranges[amount], (first, stop))


def _runs(ordered: np.ndarray) -> list[tuple[int, int]]:
    """Each value of an array in which equal ones lie together, and how often it is there."""
    starts = np.flatnonzero(np.diff(ordered, prepend=-1))
    counts = np.diff(starts, append=len(ordered))
    return list(zip(ordered[starts].tolist(), counts.tolist(), strict=True))


def _cuts_by_tokens(lengths: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and sizes of the groups that `lengths` are cut into, in order, each with as many items as fit."""
    ends = step_ends(lengths, max_tokens).tolist()
    starts = [0]
    while ends[starts[-1]] < len(ends):
        starts.append(ends[starts[-1]])
    return np.arange(len(starts)), np.diff(starts, append=len(ends))
