"""A key-value cache that grows in blocks, so that a decode step does not copy what is there."""

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer

BLOCK = 64
"""Tokens by which the buffers grow."""


class GrowingLayer(DynamicLayer):
    """Keys and values of one attention layer: `[B, H_kv, capacity, D]`, filled from the start."""

    def __init__(self) -> None:
        super().__init__()
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append `[B, H_kv, n, D]` and return views of all that is stored."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None
        assert self.values is not None
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if self._key_buffer is None or self._value_buffer is None or self._key_buffer.shape[2] < end:
            self._key_buffer = _grown(self.keys, key_states, start, end)
            self._value_buffer = _grown(self.values, value_states, start, end)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self.keys = self._key_buffer[:, :, :end]
        self.values = self._value_buffer[:, :, :end]
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep, repeat or reorder rows."""
        super().batch_select_indices(indices)
        self._key_buffer = self._value_buffer = None


def _grown(stored: Tensor, states: Tensor, filled: int, needed: int) -> Tensor:
    """A larger buffer that begins with what is stored."""
    rows, heads, _, width = states.shape
    buffer = torch.empty(rows, heads, -(-needed // BLOCK) * BLOCK, width, dtype=states.dtype, device=states.device)
    if filled:
        buffer[:, :, :filled] = stored
    return buffer


def make_cache(config: PretrainedConfig) -> DynamicCache:
    """The model's own cache, with plain layers replaced by growing ones."""
    cache = DynamicCache(config=config)
    cache.layers = [GrowingLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
