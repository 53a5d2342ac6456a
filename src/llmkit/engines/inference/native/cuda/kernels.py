"""Triton kernels over a paged cache: storing keys and values, attention to them, and putting its parts together.

One kernel serves tokens that are drawn and prompts that are read, whatever came before: queries are taken in tiles of a
sequence's tokens, times the heads that share a key head, so that every key is loaded once for all of them. A drawn
token is a tile by itself, whose keys several programs divide. Formulae: arXiv:2307.08691 (tiles, running maximum) and
arXiv:2309.06180 (blocks).
"""

import triton
import triton.language as tl

# What differs from step to step must not make another kernel: each takes a second to compile.
NUMBERS = ["slots", "tables", "positions", "tile_rows", "tile_firsts", "tile_counts"]
SIZES = ["num_tokens", "table_row_stride", "table_column_stride"]
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize_on_alignment=NUMBERS)
def store(
    key, value, keys, values, slots,
    key_head_stride, key_token_stride, value_head_stride, value_token_stride,
    heads: tl.constexpr, block_size: tl.constexpr, key_width: tl.constexpr, value_width: tl.constexpr,
    key_lanes: tl.constexpr, value_lanes: tl.constexpr,
):  # fmt: skip
    """Write one token's key and value of one head to its slot, `block * block_size + offset`; grid (T, H_kv)."""
    token, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    slot = tl.load(slots + token).to(tl.int64)
    place = (slot // block_size * heads + head) * block_size + slot % block_size
    lane = tl.arange(0, key_lanes)
    inside = lane < key_width
    found = tl.load(key + head * key_head_stride + token * key_token_stride + lane, mask=inside)
    tl.store(keys + place * key_width + lane, found.to(keys.dtype.element_ty), mask=inside)
    lane = tl.arange(0, value_lanes)
    inside = lane < value_width
    found = tl.load(value + head * value_head_stride + token * value_token_stride + lane, mask=inside)
    tl.store(values + place * value_width + lane, found.to(values.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=SIZES, do_not_specialize_on_alignment=NUMBERS)
def attend(
    query, keys, values, tables, positions, tile_rows, tile_firsts, tile_counts, sinks, out, sums,
    scaling, softcap, query_head_stride, query_token_stride, table_row_stride, table_column_stride, num_tokens,
    heads: tl.constexpr, groups: tl.constexpr, block_size: tl.constexpr,
    key_width: tl.constexpr, value_width: tl.constexpr, key_lanes: tl.constexpr, value_lanes: tl.constexpr,
    rows: tl.constexpr, step: tl.constexpr, splits: tl.constexpr,
    window: tl.constexpr, has_softcap: tl.constexpr, has_sinks: tl.constexpr, has_tiles: tl.constexpr,
):  # fmt: skip
    """Attention of one tile's queries, for one key head, to one of `splits` parts of its keys.

    Grid (tiles, H_kv, splits). Without tiles, token t is all of row t's queries.

    Args:
        out: [T, H, D_v]; with several splits [splits, T, H, D_v] float32 of results that `combine` weighs.
        sums: [splits, T, H] float32 logarithms, base 2, of the sums that the results were divided by.
        rows: queries of a tile, padded to a power of 2; `step`: keys that are looked at together.
        window: tokens that each one sees, itself included; 0 is all.
    """
    tile, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    if has_tiles:
        row = tl.load(tile_rows + tile)
        first = tl.load(tile_firsts + tile)
        count = tl.load(tile_counts + tile)
    else:
        row, first, count = tile, tile, 1
    # Row r of the tile is query token r // groups, head r % groups of those that share the key head.
    index = tl.arange(0, rows)
    token = first + index // groups
    head = kv_head * groups + index % groups
    is_query = index < count * groups
    begins = tl.load(positions + first).to(tl.int32)
    place = begins + index // groups
    key_lane, value_lane = tl.arange(0, key_lanes), tl.arange(0, value_lanes)
    queries = tl.load(
        query
        + head[:, None] * query_head_stride
        + token[:, None].to(tl.int64) * query_token_stride
        + key_lane[None, :],
        mask=is_query[:, None] & (key_lane < key_width)[None, :],
        other=0.0,
    ).to(keys.dtype.element_ty)

    low = 0
    if window > 0:
        low = tl.maximum(begins - window + 1, 0) // step * step
    end = begins + count
    if splits > 1:
        share = tl.cdiv(tl.cdiv(end - low, step), splits) * step
        low = low + split * share
        end = tl.minimum(low + share, end)

    greatest = tl.full([rows], float("-inf"), tl.float32)
    total = tl.zeros([rows], tl.float32)
    if has_sinks:  # a sink is a key without a value; one of the parts counts it
        sink = tl.load(sinks + head, mask=is_query, other=0.0).to(tl.float32) * LOG2_E
        greatest = tl.where(split == 0, sink, greatest)
        total = tl.where(split == 0, 1.0, total)
    result = tl.zeros([rows, value_lanes], tl.float32)
    for start in range(low, end, step):
        spot = start + tl.arange(0, step)
        known = spot < end
        block = tl.load(tables + row * table_row_stride + spot // block_size * table_column_stride, mask=known, other=0)
        slot = (block.to(tl.int64) * heads + kv_head) * block_size + spot % block_size
        key = tl.load(
            keys + slot[None, :] * key_width + key_lane[:, None],
            mask=known[None, :] & (key_lane < key_width)[:, None],
            other=0.0,
        )
        scores = tl.dot(queries, key, input_precision="ieee") * scaling
        if has_softcap:
            scores = softcap * (1.0 - 2.0 / (tl.exp(2.0 * scores / softcap) + 1.0))  # of tanh
        seen = known[None, :] & (spot[None, :] <= place[:, None])
        if window > 0:
            seen = seen & (spot[None, :] > place[:, None] - window)
        scores = tl.where(seen, scores * LOG2_E, float("-inf"))
        greater = tl.maximum(greatest, tl.max(scores, 1))
        # Where nothing was seen yet, minus infinity less itself would be no number.
        origin = tl.where(greater == float("-inf"), 0.0, greater)
        weights = tl.exp2(scores - origin[:, None])
        shrink = tl.exp2(greatest - origin)
        total = total * shrink + tl.sum(weights, 1)
        value = tl.load(
            values + slot[:, None] * value_width + value_lane[None, :],
            mask=known[:, None] & (value_lane < value_width)[None, :],
            other=0.0,
        )
        result = result * shrink[:, None] + tl.dot(weights.to(value.dtype), value, input_precision="ieee")
        greatest = greater

    result = result / tl.where(total == 0.0, 1.0, total)[:, None]
    spots = (split.to(tl.int64) * num_tokens + token) * (heads * groups) + head
    if splits > 1:
        logarithm = tl.where(total == 0.0, float("-inf"), greatest + tl.log2(tl.where(total == 0.0, 1.0, total)))
        tl.store(sums + spots, logarithm, mask=is_query)
    tl.store(
        out + spots[:, None] * value_width + value_lane[None, :],
        result.to(out.dtype.element_ty),
        mask=is_query[:, None] & (value_lane < value_width)[None, :],
    )


@triton.jit(do_not_specialize=SIZES)
def combine(
    parts, sums, out, num_tokens, num_heads,
    value_width: tl.constexpr, value_lanes: tl.constexpr, splits: tl.constexpr,
):  # fmt: skip
    """Weigh the parts of one token and head by their sums; grid (T, H). At least one part has seen a key or a sink."""
    spot = tl.program_id(0).to(tl.int64) * num_heads + tl.program_id(1)
    part = tl.arange(0, splits)
    places = part.to(tl.int64) * num_tokens * num_heads + spot
    logarithms = tl.load(sums + places)
    weights = tl.exp2(logarithms - tl.max(logarithms, 0))
    weights = weights / tl.sum(weights, 0)
    lane = tl.arange(0, value_lanes)
    inside = lane < value_width
    found = tl.load(parts + places[:, None] * value_width + lane[None, :], mask=inside[None, :], other=0.0)
    result = tl.sum(found * weights[:, None], 0)
    tl.store(out + spot * value_width + lane, result.to(out.dtype.element_ty), mask=inside)
