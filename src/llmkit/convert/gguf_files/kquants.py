"""The k-quants Q4_K, Q5_K and Q6_K: blocks of 256 numbers with scales of their own parts.

The package gguf reads these and does not write them. Layout of the bytes: ggml's `block_q4_K`, `block_q5_K` and
`block_q6_K` (ggml-common.h). Scales are searched for: of several roundings, the one with the smallest weighted error
after a least-squares fit.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of float32 and uint8; numpy's annotations lose the element's type in arithmetic.
Floats = NDArray[Any]
Bytes = NDArray[Any]
BLOCK = 256
STRETCHES = np.linspace(-0.8, 0.8, 9, dtype=np.float32)
"""By how many steps the range may be stretched over more or fewer levels in the search."""
SIX_BITS = 63


def quantize_q4_k(blocks: Floats) -> Bytes:
    """[N, 256] numbers as [N, 144] bytes: 4 bits each, scale and minimum of each 32 in 6 bits."""
    header, levels = _affine_blocks(blocks, 15)
    return np.concatenate([header, _nibbles(levels)], axis=1)


def quantize_q5_k(blocks: Floats) -> Bytes:
    """[N, 256] numbers as [N, 176] bytes: 5 bits each, scale and minimum of each 32 in 6 bits."""
    header, levels = _affine_blocks(blocks, 31)
    # Bit j of byte i is the fifth bit of number i of part j.
    high = np.bitwise_or.reduce((levels >> 4) << np.arange(8, dtype=np.uint8)[:, None], axis=1)
    return np.concatenate([header, high, _nibbles(levels & 15)], axis=1)


def quantize_q6_k(blocks: Floats) -> Bytes:
    """[N, 256] numbers as [N, 210] bytes: 6 bits each, a scale of each 16 in 8 bits."""
    parts = blocks.reshape(-1, 16, 16)
    scales = _symmetric_scales(parts)
    extreme = np.take_along_axis(scales, np.abs(scales).argmax(1, keepdims=True), axis=1)
    step = (extreme / -128).astype(np.float16)
    whole = _rounded(_divided(scales, step.astype(np.float32)), -128, 127)
    levels = _rounded(_divided(parts, (step * whole)[..., None].astype(np.float32)), -32, 31)
    levels = (levels + 32).astype(np.uint8).reshape(-1, 2, 4, 32)
    low, high = levels & 15, levels >> 4
    low = (low[:, :, :2] | low[:, :, 2:] << 4).reshape(-1, 128)
    high = np.bitwise_or.reduce(high << np.array([0, 2, 4, 6], np.uint8)[:, None], axis=2).reshape(-1, 64)
    return np.concatenate([low, high, whole.astype(np.int8).view(np.uint8), step.view(np.uint8)], axis=1)


QUANTIZERS: Mapping[str, Callable[[Floats], Bytes]] = {
    "Q4_K": quantize_q4_k,
    "Q5_K": quantize_q5_k,
    "Q6_K": quantize_q6_k,
}
"""By the name of the type."""


def _affine_blocks(blocks: Floats, top: int) -> tuple[Bytes, Bytes]:
    """The 16 bytes of scales and minima, and [N, 8, 32] levels from 0 to `top`."""
    parts = blocks.reshape(-1, 8, 32)
    scales, minima = _affine_fit(parts, top)
    step, step_minimum = ((one.max(1, keepdims=True) / SIX_BITS).astype(np.float16) for one in (scales, minima))
    whole, whole_minima = (
        _rounded(_divided(one, unit.astype(np.float32)), 0, SIX_BITS).astype(np.uint8)
        for one, unit in ((scales, step), (minima, step_minimum))
    )
    scale = step.astype(np.float32) * whole
    minimum = step_minimum.astype(np.float32) * whole_minima
    levels = _rounded(_divided(parts + minimum[..., None], scale[..., None]), 0, top).astype(np.uint8)
    packed = _six_bit_pairs(whole, whole_minima)
    return np.concatenate([step.view(np.uint8), step_minimum.view(np.uint8), packed], axis=1), levels


def _affine_fit(parts: Floats, top: int) -> tuple[Floats, Floats]:
    """Scale and minimum, both at least 0, so that `scale * level - minimum` is near the numbers of each part."""
    weights = np.abs(parts) + np.sqrt(np.square(parts).mean(-1, keepdims=True))
    lowest = np.minimum(parts.min(-1), 0)
    width = parts.max(-1) - lowest
    best_scale, best_minimum = width / top, -lowest
    best_error = np.full_like(width, np.inf)
    total, total_x = weights.sum(-1), (weights * parts).sum(-1)
    for stretch in STRETCHES:
        levels = _rounded(_divided(parts - lowest[..., None], (width / (top + stretch))[..., None]), 0, top)
        weighted = weights * levels
        total_l, total_ll, total_lx = weighted.sum(-1), (weighted * levels).sum(-1), (weighted * parts).sum(-1)
        scale = _divided(total * total_lx - total_l * total_x, total * total_ll - total_l**2)
        minimum = _divided(total_l * total_lx - total_ll * total_x, total * total_ll - total_l**2)
        # A minimum below 0 has no place, so the line goes through 0 instead.
        scale = np.where(minimum < 0, _divided(total_lx, total_ll), scale)
        minimum = np.maximum(minimum, 0)
        error = (weights * np.square(scale[..., None] * levels - minimum[..., None] - parts)).sum(-1)
        better = (error < best_error) & (scale > 0)
        best_scale, best_minimum = np.where(better, scale, best_scale), np.where(better, minimum, best_minimum)
        best_error = np.where(better, error, best_error)
    return best_scale, best_minimum


def _symmetric_scales(parts: Floats) -> Floats:
    """For each part the scale, of either sign, so that `scale * level` with levels from -32 to 31 is near it."""
    extreme = np.take_along_axis(parts, np.abs(parts).argmax(-1, keepdims=True), axis=-1)[..., 0]
    best = extreme / -32
    weights = np.square(parts)
    best_gain = np.full_like(best, -np.inf)
    for stretch in STRETCHES:
        levels = _rounded(_divided(parts, (extreme / -(32 + stretch))[..., None]), -32, 31)
        weighted = weights * levels
        total_lx, total_ll = (weighted * parts).sum(-1), (weighted * levels).sum(-1)
        # The squared error of the best scale is a constant less this.
        gain = _divided(total_lx**2, total_ll)
        best = np.where(gain > best_gain, _divided(total_lx, total_ll), best)
        best_gain = np.maximum(gain, best_gain)
    return best


def _six_bit_pairs(scales: Bytes, minima: Bytes) -> Bytes:
    """Eight scales and eight minima of 6 bits in 12 bytes: the first four of each whole, the others in two pieces."""
    first = scales[:, :4] | (scales[:, 4:] >> 4) << 6
    second = minima[:, :4] | (minima[:, 4:] >> 4) << 6
    return np.concatenate([first, second, scales[:, 4:] & 15 | minima[:, 4:] << 4], axis=1)


def _nibbles(levels: Bytes) -> Bytes:
    """[N, 8, 32] levels of 4 bits as [N, 128] bytes: two neighbouring parts share theirs."""
    pairs = levels.reshape(-1, 4, 2, 32)
    return (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)


def _divided(one: Floats, other: Floats) -> Floats:
    """The quotient; 0 where it has no value, or is too large for one."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        found = one / other
    return np.where(np.isfinite(found), found, np.float32(0))


def _rounded(values: Floats, low: int, high: int) -> Floats:
    return np.clip(np.rint(values), low, high)
