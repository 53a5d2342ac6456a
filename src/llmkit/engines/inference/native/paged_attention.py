"""Attention of packed tokens to keys and values that lie in blocks."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.models.packed import AttentionPlan

LONGEST_SCORES = 1 << 24
"""Scores of one call that are held as a whole; above it PyTorch's fused kernel takes over where it can."""
SIMILAR = 2
"""Sequences are attended to together if none is more than so many times as long as another."""


class LayerShape(NamedTuple):
    """What one attention layer keeps of each token."""

    kv_heads: int
    key_width: int
    value_width: int
    key_dtype: torch.dtype
    value_dtype: torch.dtype


@dataclass
class LayerCache:
    """Keys `[blocks, H_kv, BLOCK_SIZE, D_k]` and values `[blocks, H_kv, BLOCK_SIZE, D_v]` of one layer."""

    keys: Tensor
    values: Tensor

    @classmethod
    def empty(cls, shape: LayerShape, num_blocks: int, device: torch.device) -> "LayerCache":
        """Room for so many blocks. What was never written is masked, but must not be NaN: zeros."""
        size = (num_blocks, shape.kv_heads, BLOCK_SIZE)
        return cls(
            torch.zeros(*size, shape.key_width, dtype=shape.key_dtype, device=device),
            torch.zeros(*size, shape.value_width, dtype=shape.value_dtype, device=device),
        )

    def write(self, blocks: Tensor, offsets: Tensor, key: Tensor, value: Tensor) -> None:
        """Store [1, H_kv, T, D] keys and values at T places."""
        self.keys[blocks, :, offsets] = key[0].transpose(0, 1).to(self.keys.dtype)
        self.values[blocks, :, offsets] = value[0].transpose(0, 1).to(self.values.dtype)


@dataclass
class Rows:
    """Sequences that are attended to together: R of them, n query tokens each.

    Attributes:
        tokens: [R * n] where the queries are among the T tokens; None when they are all of them, in order.
        blocks: [R, longest] that hold the keys in sight.
        mask: [R, 1, n, longest * BLOCK_SIZE] float, 0 where a key is in sight and minus infinity elsewhere.
        fresh: where the keys of the only sequence are the queries' own, nothing before them: its slice.
    """

    tokens: Tensor | None
    blocks: Tensor
    mask: Tensor
    count: int
    fresh: slice | None = None
    gathers: dict[int, Tensor] = field(default_factory=dict[int, Tensor])

    def gather(self, cache: Tensor) -> Tensor:
        """[R, H_kv, longest * BLOCK_SIZE, D] the cached vectors of each sequence, in order."""
        blocks, heads, size, width = cache.shape
        if heads not in self.gathers:
            within = torch.arange(heads, device=cache.device)
            self.gathers[heads] = (self.blocks[:, None] * heads + within[:, None]).flatten()
        found = cache.view(blocks * heads, size * width).index_select(0, self.gathers[heads])
        return found.view(self.blocks.shape[0], heads, -1, width)


class PagedLayout(AttentionPlan):
    """Where the sequences of a step lie among its tokens and in the cache; gives attention in the order of layers."""

    def __init__(self, step: Step, caches: Sequence[LayerCache]) -> None:
        self._caches = caches
        self._next_layer = 0
        self._windows: dict[int | None, list[Rows]] = {}
        starts = step.query_starts.tolist()
        self._spans = list(pairwise(starts))
        positions = step.positions.tolist()
        self._firsts = [positions[start] for start, _ in self._spans]
        device = caches[0].keys.device
        table = step.block_tables.long()
        owners = torch.repeat_interleave(torch.arange(len(self._spans)), step.query_starts.diff().long())
        self._table = table.to(device)
        self._blocks = table[owners, step.positions // BLOCK_SIZE].to(device)
        self._offsets = (step.positions % BLOCK_SIZE).to(device)

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, **options: Any
    ) -> Tensor:
        """Store keys and values of the next layer and attend.

        Args:
            query: [1, H, T, D_k]; key and value: [1, H_kv, T, D].
            options: `sliding_window` tokens that each one sees, itself included; `softcap` bound on the scores
                (arXiv:2408.00118); `s_aux` [H] sinks, scores of a key that has no value (arXiv:2309.17453).
        Returns: [1, T, H, D_v].
        """
        cache = self._caches[self._next_layer]
        self._next_layer += 1
        cache.write(self._blocks, self._offsets, key, value)
        softcap, sinks = options.get("softcap"), options.get("s_aux")
        window = options.get("sliding_window") or None
        if window not in self._windows:
            self._windows[window] = self._rows(window)
        out = query.new_empty(query.shape[2], query.shape[1], cache.values.shape[-1], dtype=cache.values.dtype)
        for rows in self._windows[window]:
            plain = softcap is None and sinks is None
            if rows.fresh is not None and plain:
                part = slice(None), slice(None), rows.fresh
                attended = _fused(query[part], key[part], value[part], None, scaling)
            else:
                queries = query[0] if rows.tokens is None else query[0].index_select(1, rows.tokens)
                queries = queries.unflatten(1, (-1, rows.count)).transpose(0, 1)
                keys, values = rows.gather(cache.keys), rows.gather(cache.values)
                large = queries.shape[0] * queries.shape[1] * rows.count * keys.shape[2] > LONGEST_SCORES
                if large and plain:
                    attended = _fused(queries, keys, values, rows.mask, scaling)
                else:
                    attended = _attention(queries, keys, values, rows.mask, scaling, softcap, sinks)
            packed = attended.transpose(1, 2).flatten(0, 1)
            if rows.tokens is None:
                return packed[None]
            out[rows.tokens] = packed.to(out.dtype)
        return out[None]

    def _rows(self, window: int | None) -> list[Rows]:
        """Sequences that draw go together by similar length; those that read go one by one."""
        drawing = [row for row, (start, end) in enumerate(self._spans) if end - start == 1]
        drawing.sort(key=lambda row: -self._in_sight(row, window))
        groups: list[list[int]] = []
        for row in drawing:
            if groups and self._in_sight(row, window) * SIMILAR >= self._in_sight(groups[-1][0], window):
                groups[-1].append(row)
            else:
                groups.append([row])
        if len(groups) == 1 and len(drawing) == len(self._spans):
            groups = [sorted(drawing)]
        groups += [[row] for row, (start, end) in enumerate(self._spans) if end - start > 1]
        return [self._together(group, window, len(groups) == 1) for group in groups]

    def _together(self, rows: list[int], window: int | None, alone: bool) -> Rows:
        device = self._table.device
        spans = [self._spans[row] for row in rows]
        count = spans[0][1] - spans[0][0]
        first_blocks = [self._first_block(row, window) for row in rows]
        longest = max(self._last_block(row) - first + 1 for row, first in zip(rows, first_blocks, strict=True))
        columns = torch.tensor(first_blocks, device=device)[:, None] + torch.arange(longest, device=device)
        blocks = self._table[torch.tensor(rows, device=device)[:, None], columns.clamp(max=self._table.shape[1] - 1)]
        firsts = torch.tensor([self._firsts[row] for row in rows], device=device)
        queries = (firsts[:, None] + torch.arange(count, device=device))[:, :, None]
        keys = (columns[:, :, None] * BLOCK_SIZE + torch.arange(BLOCK_SIZE, device=device)).flatten(1)[:, None]
        hidden = keys > queries
        if window is not None:
            hidden |= keys <= queries - window
        mask = torch.zeros(hidden.shape, device=device).masked_fill_(hidden, float("-inf"))[:, None]
        tokens = None
        if not alone:
            tokens = torch.cat([torch.arange(start, end, device=device) for start, end in spans])
        fresh = None
        if len(rows) == 1 and self._firsts[rows[0]] == 0 and (window is None or count <= window):
            fresh = slice(*spans[0])
        return Rows(tokens, blocks, mask, count, fresh)

    def _first_block(self, row: int, window: int | None) -> int:
        """Of the keys that the first query token sees."""
        return 0 if window is None else max(0, self._firsts[row] - window + 1) // BLOCK_SIZE

    def _last_block(self, row: int) -> int:
        start, end = self._spans[row]
        return (self._firsts[row] + end - start - 1) // BLOCK_SIZE

    def _in_sight(self, row: int, window: int | None) -> int:
        return self._last_block(row) - self._first_block(row, window) + 1


def _attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, scaling: float, softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:  # fmt: skip
    """[R, H, n, D_v] attention written out: queries of one key head are stacked, so that keys are never repeated."""
    num_rows, heads, count, width = query.shape
    kv_heads, length = keys.shape[1:3]
    groups = heads // kv_heads
    stacked = query.reshape(num_rows, kv_heads, groups * count, width).to(keys.dtype)
    scores = (stacked @ keys.transpose(2, 3)).view(num_rows, kv_heads, groups, count, length).float() * scaling
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores += mask[:, :, None]
    if sinks is None:
        weights = scores.softmax(dim=-1)
    else:
        sink = sinks.float().view(1, kv_heads, groups, 1, 1).expand(num_rows, -1, -1, count, 1)
        weights = torch.cat([scores, sink], dim=-1).softmax(dim=-1)[..., :-1]
    weights = weights.to(values.dtype).view(num_rows, kv_heads, groups * count, length)
    return (weights @ values).view(num_rows, heads, count, -1)


def _fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float) -> Tensor:
    """[R, H, n, D_v] by PyTorch's kernels; causal from the first token on without a mask."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    if mask is not None:
        mask = mask.to(query.dtype)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip
