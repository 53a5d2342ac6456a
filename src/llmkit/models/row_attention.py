"""Causal attention of short rows in a few batched products, forward and backward: what a CPU does fastest."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

softmax_backward = torch.ops.aten._softmax_backward_data.default
BLOCK = 128
"""Queries that are taken together: keys behind the last one of them are not looked at."""


def row_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """[B, H, L, D] attention in which the last query sees all keys, and each query one key less than the next.

    Products run in the type of autocast, or in that of the query; the gradient is that of the formula, with
    probabilities kept in this type.

    Args:
        query: [B, H, L, D].
        key, value: [B, H_kv, P + L, D]; the first P keys are seen by every query.
        scaling: factor of the scores.
    """
    if torch.is_autocast_enabled(query.device.type):
        kind = torch.get_autocast_dtype(query.device.type)
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    with torch.autocast(query.device.type, enabled=False):
        return _RowAttention.apply(query, key, value, scaling)  # pyright: ignore[reportReturnType] - untyped in torch


class _RowAttention(torch.autograd.Function):
    """softmax(scaling * Q K^T) V, a block of queries at a time. All query heads of one key head are stacked along the
    length, so that keys are never repeated. With P the probabilities and dP = dO V^T, scores have the gradient
    `P * (dP - sum(P * dP))`.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        stacked, keys, values = _stack(query, key), key.flatten(0, 1), value.flatten(0, 1)
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        outputs = output.view(stacked.shape)
        kept = []
        for start, end, seen in _blocks(query, key):
            scores = torch.bmm(_taken(stacked, start, end), keys[:, :seen].transpose(1, 2)).mul_(scaling)
            _hide_later(scores, stacked.shape[1], end - start)
            probabilities = torch.softmax(scores, dim=-1)
            kept.append(probabilities)
            outputs[:, :, start:end] = torch.bmm(probabilities, values[:, :seen]).view(outputs[:, :, start:end].shape)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scaling = scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        query, key, value, *kept = ctx.saved_tensors
        stacked, keys, values = _stack(query, key), key.flatten(0, 1), value.flatten(0, 1)
        upstream = _stack(by_output, key)
        by_query = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        by_queries = by_query.view(stacked.shape)
        by_keys, by_values = torch.zeros_like(keys), torch.zeros_like(values)
        for (start, end, seen), probabilities in zip(_blocks(query, key), kept, strict=True):
            by_block, block = _taken(upstream, start, end), _taken(stacked, start, end)
            by_values[:, :seen] += torch.bmm(probabilities.transpose(1, 2), by_block)
            by_scores = torch.bmm(by_block, values[:, :seen].transpose(1, 2))
            by_scores = softmax_backward(by_scores, probabilities, -1, by_scores.dtype).mul_(ctx.scaling)
            by_queries[:, :, start:end] = torch.bmm(by_scores, keys[:, :seen]).view(by_queries[:, :, start:end].shape)
            by_keys[:, :seen] += torch.bmm(by_scores.transpose(1, 2), block)
        return by_query, by_keys.view(key.shape), by_values.view(value.shape), None


def _stack(states: Tensor, key: Tensor) -> Tensor:
    """[B, H, L, D] as [B * H_kv, H / H_kv, L, D]."""
    rows, heads, length, width = states.shape
    return states.reshape(rows * key.shape[1], heads // key.shape[1], length, width)


def _taken(stacked: Tensor, start: int, end: int) -> Tensor:
    """[n, G * (end - start), D] of [n, G, L, D]."""
    return stacked[:, :, start:end].flatten(1, 2)


def _blocks(query: Tensor, key: Tensor) -> list[tuple[int, int, int]]:
    """Start and end of each block of queries, and how many keys its last one sees."""
    length, shared = query.shape[2], key.shape[2] - query.shape[2]
    ends = [min(start + BLOCK, length) for start in range(0, length, BLOCK)]
    return [(start, end, shared + end) for start, end in zip([0, *ends], ends, strict=False)]


def _hide_later(scores: Tensor, groups: int, size: int) -> None:
    """Take what comes after each query out of a block's scores, which has the last `size` keys alone to hide."""
    last = scores.view(len(scores), groups, size, -1)[..., -size:]
    last += torch.full((size, size), float("-inf"), dtype=scores.dtype, device=scores.device).triu(1)
