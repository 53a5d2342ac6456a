"""Causal attention within one sequence by PyTorch's own kernel, which works on every device."""

import torch
from torch import Tensor
from torch.nn import functional as F

LONGEST_ROW = 512
"""Tokens up to which sequences are lifted into rows on a CPU; longer ones go one by one through the fused kernel."""


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
