"""Causal attention within one sequence, or within rows of equal length: the kernels that layouts are made of."""

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST_ROW = 512
"""Tokens up to which sequences are lifted into rows on a CPU; longer ones go one by one through the fused kernel."""


def row_attention(query: Tensor, key: Tensor, value: Tensor, causal: Tensor, scaling: float) -> Tensor:
    """[B, H, L, D] plain attention: on CPUs two batched products beat the fused kernel at these lengths.

    Args:
        key, value: [B, H_kv, L, D].
        causal: [L, L] True where attention is allowed.
    """
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    # All query heads of one key head are stacked along the length: keys are never repeated.
    stacked = query.reshape(rows, key.shape[1], groups * length, width)
    scores = (stacked @ key.transpose(2, 3)).view(rows, key.shape[1], groups, length, length) * scaling
    weights = scores.masked_fill(~causal, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights.view(rows, key.shape[1], groups * length, length) @ value).view(rows, heads, length, width)


def branch_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    prompt_key: Tensor,
    prompt_value: Tensor,
    causal: Tensor,
    scaling: float,
) -> Tensor:
    """[B, H, L, D] attention of B rows, each to all of one prompt and causally to itself.

    Args:
        key, value: [B, H_kv, L, D] of the rows.
        prompt_key, prompt_value: [H_kv, P, D].
        causal: [L, L] True where attention within a row is allowed.
    """
    rows, heads, length, width = query.shape
    kv_heads, prompt = prompt_key.shape[:2]
    groups = heads // kv_heads
    stacked = query.reshape(rows, kv_heads, groups * length, width)
    # The prompt meets the queries of all rows in one product.
    together = stacked.transpose(0, 1).reshape(kv_heads, -1, width)
    to_prompt = (together @ prompt_key.transpose(1, 2)).view(kv_heads, rows, groups * length, prompt).transpose(0, 1)
    to_row = (stacked @ key.transpose(2, 3)).view(rows, kv_heads, groups, length, length)
    to_row = to_row.masked_fill(~causal, float("-inf")).view(rows, kv_heads, groups * length, length)
    scores = torch.cat([to_prompt, to_row], dim=-1) * scaling
    on_prompt, on_row = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype).split([prompt, length], dim=-1)
    from_prompt = on_prompt.transpose(0, 1).reshape(kv_heads, -1, prompt) @ prompt_value
    from_prompt = from_prompt.view(kv_heads, rows, groups * length, width).transpose(0, 1)
    return (from_prompt + on_row @ value).reshape(rows, heads, length, width)


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, sliding_window: int | None
) -> Tensor:
    """[1, H, L, D] causal attention within one sequence, by PyTorch's kernel.

    Args:
        key, value: [1, H_kv, L, D].
        sliding_window: tokens that each one sees, itself included; None is all.
    """
    window = window_mask(query.shape[2], sliding_window, query.device)
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=window, is_causal=window is None, dropout_p=dropout, scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )  # fmt: skip


def window_mask(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """[length, length] True where attention is allowed; None when the window covers the whole sequence."""
    if sliding_window is None or length <= sliding_window:
        return None
    index = torch.arange(length, device=device)
    distance = index[:, None] - index[None, :]
    return (distance >= 0) & (distance < sliding_window)
