"""Attention of packed tokens to a paged cache by the Triton kernels, and what they are launched with."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.native.cuda import kernels
from llmkit.engines.inference.native.paged_attention import LayerCache
from llmkit.engines.inference.native.runner import BLOCK_SIZE

_kernels: Any = kernels  # whose launches take more than their signatures say
TILE_ROWS = 64
"""Queries of a tile where prompts are read, one for each token and head; fewer where they are wide."""
LEAST_ROWS = 16
"""Tensor cores multiply no fewer."""
TILE_BYTES = 32 << 10
"""Of queries, and of keys and values that are looked at together: two such lots and the queries fit the shared memory
of every GPU since compute 8.0."""
MOST_SPLITS = 32
"""Parts that the keys of a drawn token are divided into, at most."""


@dataclass(frozen=True)
class Tiles:
    """Queries of prompts, in tiles of tokens of one sequence.

    Attributes:
        rows: [N] int32, of the block table.
        firsts: [N] int32, the first token among the T.
        counts: [N] int32, of tokens.
        size: most tokens of a tile.
    """

    rows: Tensor
    firsts: Tensor
    counts: Tensor
    size: int


@dataclass(frozen=True)
class Places:
    """Where T tokens of S sequences lie in the cache; everything is on the device.

    Attributes:
        positions: [T] int32, in their own sequence.
        slots: [T] int32, `block * BLOCK_SIZE + offset`.
        tables: [S, longest] int32 with any strides.
        num_programs: that keep the device busy.
    """

    positions: Tensor
    slots: Tensor
    tables: Tensor
    num_programs: int


@dataclass(frozen=True)
class Scores:
    """How a layer makes scores of queries and keys.

    Attributes:
        scaling: factor.
        window: tokens that each one sees, itself included; 0 is all.
        softcap: bound, as in arXiv:2408.00118; None is none.
        sinks: [H] scores of a key that has no value (arXiv:2309.17453); None is none.
    """

    scaling: float
    window: int = 0
    softcap: float | None = None
    sinks: Tensor | None = None


def tile_size(groups: int, query_bytes: int) -> int:
    """Tokens of a tile, where so many heads share one of the keys', and a query is so long."""
    return max(1, min(TILE_ROWS, TILE_BYTES // query_bytes) // groups)


def num_splits(num_rows: int, kv_heads: int, num_programs: int) -> int:
    """Parts that the keys of each drawn token are divided into, so that all of them keep the device busy."""
    return min(_power_of_2(-(-num_programs // (num_rows * kv_heads))), MOST_SPLITS)


def store(cache: LayerCache, key: Tensor, value: Tensor, slots: Tensor) -> None:
    """Store [H_kv, T, D] keys and values at T slots."""
    key, value = _dense(key), _dense(value)
    heads, num_tokens, width = key.shape
    _kernels.store[(num_tokens, heads)](
        key, value, cache.keys, cache.values, slots, *key.stride()[:2], *value.stride()[:2],
        heads=heads, block_size=BLOCK_SIZE, key_width=width, value_width=value.shape[2],
        key_lanes=_lanes(width), value_lanes=_lanes(value.shape[2]),
    )  # fmt: skip


def attend_drawn(query: Tensor, cache: LayerCache, places: Places, scores: Scores, out: Tensor) -> None:
    """Attention of the first n tokens, each the only one of its sequence, which has the row of the same number.

    Args:
        query: [H, n, D_k].
        out: [n, H, D_v] to be written.
    """
    heads, num_tokens = query.shape[:2]
    kv_heads = cache.keys.shape[1]
    splits = num_splits(num_tokens, kv_heads, places.num_programs)
    rows = max(LEAST_ROWS, _power_of_2(heads // kv_heads))
    if splits == 1:
        _attend(query, cache, places, scores, None, rows, num_tokens, 1, out, out)
        return
    parts = torch.empty(splits, *out.shape, dtype=torch.float32, device=out.device)
    sums = torch.empty(splits, num_tokens, heads, dtype=torch.float32, device=out.device)
    _attend(query, cache, places, scores, None, rows, num_tokens, splits, parts, sums)
    _kernels.combine[(num_tokens, heads)](
        parts, sums, out, num_tokens, heads,
        value_width=out.shape[2], value_lanes=_lanes(out.shape[2]), splits=splits,
    )  # fmt: skip


def attend_read(query: Tensor, cache: LayerCache, places: Places, scores: Scores, tiles: Tiles, out: Tensor) -> None:
    """Attention of tokens in tiles.

    Args:
        query: [H, T, D_k].
        out: [T, H, D_v], written where tiles are.
    """
    rows = max(LEAST_ROWS, _power_of_2(tiles.size * (query.shape[0] // cache.keys.shape[1])))
    _attend(query, cache, places, scores, tiles, rows, len(tiles.rows), 1, out, out)


def _attend(
    query: Tensor, cache: LayerCache, places: Places, scores: Scores, tiles: Tiles | None, rows: int, num_tiles: int,
    splits: int, out: Tensor, sums: Tensor,
) -> None:  # fmt: skip
    query = _dense(query)
    kv_heads, key_width, value_width = cache.keys.shape[1], cache.keys.shape[3], cache.values.shape[3]
    key_lanes, value_lanes = _lanes(key_width), _lanes(value_width)
    bytes_per_key = key_lanes * cache.keys.itemsize + value_lanes * cache.values.itemsize
    unused = places.positions
    _kernels.attend[(num_tiles, kv_heads, splits)](
        query, cache.keys, cache.values, places.tables, places.positions,
        *((tiles.rows, tiles.firsts, tiles.counts) if tiles is not None else (unused, unused, unused)),
        scores.sinks if scores.sinks is not None else out, out, sums,
        scores.scaling, scores.softcap or 1.0, *query.stride()[:2], *places.tables.stride(), out.shape[-3],
        heads=kv_heads, groups=query.shape[0] // kv_heads, block_size=BLOCK_SIZE,
        key_width=key_width, value_width=value_width, key_lanes=key_lanes, value_lanes=value_lanes,
        rows=rows, step=min(64, max(BLOCK_SIZE, _power_of_2(TILE_BYTES // bytes_per_key + 1) // 2)), splits=splits,
        window=scores.window, has_softcap=scores.softcap is not None, has_sinks=scores.sinks is not None,
        has_tiles=tiles is not None, num_warps=4, num_stages=2,
    )  # fmt: skip


def _dense(states: Tensor) -> Tensor:
    """The numbers of one token and head must lie side by side."""
    return states if states.stride(-1) == 1 else states.contiguous()


def _lanes(width: int) -> int:
    """What a kernel holds of a vector: a power of 2 that tensor cores multiply."""
    return max(16, _power_of_2(width))


def _power_of_2(number: int) -> int:
    """The least that is not below a positive number."""
    return 1 << (number - 1).bit_length()
