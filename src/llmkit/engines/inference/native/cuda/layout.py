"""Which attention each part of a step gets on a GPU."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmkit.engines.inference.native.cuda.attention import (
    Places,
    Scores,
    Tiles,
    attend_drawn,
    attend_read,
    store,
    tile_size,
)
from llmkit.engines.inference.native.paged_attention import LayerCache
from llmkit.engines.inference.transfers import to_device
from llmkit.models.cuda_attention import can_run_varlen, varlen_attention
from llmkit.models.packed import AttentionPlan

WIDEST_FLASH = 256
"""Numbers of a head that flash attention takes."""


class CudaLayout(AttentionPlan):
    """Attention of a step's layers in the order in which they run, by kernels over the cache.

    Sequences with a single token come first and go by themselves. Of those that read, flash attention takes prompts
    without anything before them, whose keys are the queries' own, where it can; our kernel takes them all, which leaves
    one path for prompts in parts, prefixes that were found, soft-caps, sinks, and any type and width.
    """

    def __init__(self, caches: Sequence[LayerCache], places: Places, counts: Sequence[int], *, num_drawn: int,
                 begins: bool) -> None:  # fmt: skip
        """Args:
        counts: tokens of each sequence; the first `num_drawn` have one.
        begins: nothing is in the cache of any of the others.
        """
        self._caches = caches
        self._next_layer = 0
        self._places = places
        self._reading = list(counts[num_drawn:])
        self._num_drawn = num_drawn
        self._begins = begins
        self._tiles: dict[int, Tiles] = {}
        self._boundaries: Tensor | None = None

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, **options: Any
    ) -> Tensor:
        """Store keys and values of the next layer and attend; see `PagedLayout.attend`."""
        cache = self._caches[self._next_layer]
        self._next_layer += 1
        store(cache, key[0], value[0], self._places.slots)
        scores = Scores(scaling, options.get("sliding_window") or 0, options.get("softcap"), options.get("s_aux"))
        num_drawn, (heads, num_tokens) = self._num_drawn, query.shape[1:3]
        out = query.new_empty(num_tokens, heads, cache.values.shape[3], dtype=cache.values.dtype)
        if num_drawn:
            attend_drawn(query[0, :, :num_drawn], cache, self._places, scores, out[:num_drawn])
        if self._reading and self._flash_takes(query, value, scores):
            part = slice(None), slice(None), slice(num_drawn, None)
            states = query[part].to(value.dtype), key[part].to(value.dtype), value[part]
            out[num_drawn:] = varlen_attention(
                *states, self._sequence_boundaries(query.device), max(self._reading), scaling, scores.window or None
            )[0]
        elif self._reading:
            size = tile_size(heads // cache.keys.shape[1], query.shape[3] * cache.keys.itemsize)
            attend_read(query[0], cache, self._places, scores, self._in_tiles(size, query.device), out)
        return out[None]

    def _flash_takes(self, query: Tensor, value: Tensor, scores: Scores) -> bool:
        width = query.shape[3]
        fits = width == value.shape[3] and width % 8 == 0 and width <= WIDEST_FLASH
        plain = scores.softcap is None and scores.sinks is None
        return self._begins and plain and fits and can_run_varlen(value)

    def _sequence_boundaries(self, device: torch.device) -> Tensor:
        if self._boundaries is None:
            self._boundaries = to_device(np.cumsum([0, *self._reading], dtype=np.int32), device)
        return self._boundaries

    def _in_tiles(self, size: int, device: torch.device) -> Tiles:
        if size not in self._tiles:
            numbers: tuple[list[int], ...] = [], [], []
            first = self._num_drawn
            for row, count in enumerate(self._reading, start=self._num_drawn):
                begins = range(0, count, size)
                numbers[0].extend([row] * len(begins))
                numbers[1].extend(first + begin for begin in begins)
                numbers[2].extend(min(size, count - begin) for begin in begins)
                first += count
            rows, firsts, counts = to_device(np.array(numbers, dtype=np.int32), device)
            self._tiles[size] = Tiles(rows, firsts, counts, size)
        return self._tiles[size]
