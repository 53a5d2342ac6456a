"""One forward pass over many sequences laid end to end, without padding and without a dense mask."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from llmkit.types import Batch

ATTENTION = "llmkit"
"""Name of our attention in transformers' registry; models are loaded with it."""
LONGEST_ROW = 512
"""Tokens up to which sequences are lifted into rows on a CPU; longer ones go one by one through the fused kernel."""


def supports_packing(model: nn.Module) -> bool:
    """Whether the model's attention can be told where sequences end.

    Models outside transformers' attention registry, those that `loading` gave another attention, and those with an
    adapter that puts something beside each sequence go one sequence at a time instead.
    """
    if goes_one_by_one(model):
        return False
    return getattr(getattr(model, "config", None), "_attn_implementation", None) == ATTENTION


def goes_one_by_one(model: nn.Module) -> bool:
    """Whether an adapter that is switched on has virtual tokens, or a model of its own, for every sequence."""
    adapter = getattr(model, "active_peft_config", None)
    if adapter is None or getattr(model, "_adapters_disabled", False):
        return False
    return adapter.is_prompt_learning or adapter.peft_type == "SHADOW"


def packed_logits(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """Logits after the chosen positions of a packed batch.

    Args:
        positions: [N] indices into the T tokens of the batch; the head runs at these alone.
    Returns: [N, V] in the model's compute type.
    """
    if supports_packing(model):
        return _all_at_once(model, batch, positions)
    return _one_by_one(model, batch, positions)


def sequence_ids(batch: Batch) -> Tensor:
    """[T] which sequence each token belongs to, from 0."""
    ends = torch.tensor(batch.sequence_ends, device=batch.token_ids.device)
    return torch.searchsorted(ends, torch.arange(len(batch.token_ids), device=ends.device), right=True)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    return Batch(
        batch.token_ids.to(device), batch.position_ids.to(device), batch.sequence_ends, batch.loss_weights.to(device)
    )


def _all_at_once(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    # A 4-D mask is passed through by transformers as it is; our attention never reads it.
    no_mask = torch.empty(1, 1, 1, 1, device=batch.token_ids.device)
    output = model(
        input_ids=batch.token_ids[None],
        position_ids=batch.position_ids[None],
        attention_mask=no_mask,
        use_cache=False,
        logits_to_keep=positions,
        layout=Layout(batch.sequence_ends, batch.token_ids.device),
    )
    return output.logits[0]


def _one_by_one(model: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    pieces = []
    start = 0
    for end in batch.sequence_ends:
        inside = positions[(positions >= start) & (positions < end)] - start
        if len(inside):
            logits = model(input_ids=batch.token_ids[None, start:end], use_cache=False).logits[0]
            # An adapter's virtual tokens come first and have logits too.
            pieces.append(logits[len(logits) - (end - start) + inside])
        start = end
    return torch.cat(pieces)


class Layout:
    """Where sequences lie in a packed batch, and how to lift them into rows and back.

    Short sequences are lifted into right-padded rows inside the attention alone: a causal row never looks at the
    padding behind it, so no mask is built, and one batched product replaces a loop over sequences.
    """

    def __init__(self, sequence_ends: Sequence[int], device: torch.device) -> None:
        ends = torch.tensor(sequence_ends)
        self.ends = list(sequence_ends)
        self.starts = [0, *self.ends[:-1]]
        lengths = ends - torch.tensor(self.starts)
        self.longest = int(lengths.max())
        columns = torch.arange(self.longest)
        inside = columns < lengths[:, None]
        self.num_rows = len(self.ends)
        rows = torch.tensor(self.starts)[:, None] + columns
        self.lift = rows.clamp(max=self.ends[-1] - 1).flatten().to(device)
        self.lower = inside.flatten().nonzero().flatten().to(device)
        self.causal = torch.ones(self.longest, self.longest, dtype=torch.bool, device=device).tril()

    def to_rows(self, packed: Tensor) -> Tensor:
        """[1, H, T, D] to [B, H, longest, D]."""
        heads, _, width = packed.shape[1:]
        rows = packed[0].transpose(0, 1).index_select(0, self.lift)
        return rows.view(self.num_rows, self.longest, heads, width).transpose(1, 2)

    def to_packed(self, rows: Tensor) -> Tensor:
        """[B, H, longest, D] to [1, T, H, D]."""
        heads, width = rows.shape[1], rows.shape[3]
        return rows.transpose(1, 2).reshape(-1, heads, width).index_select(0, self.lower)[None]


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention within each sequence; ordinary SDPA when no `layout` is given.

    Args:
        query: [1, H, T, D]; key and value: [1, H_kv, T, D].
    Returns: [1, T, H, D] and no attention weights.
    """
    if layout is None:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling,
            sliding_window=sliding_window, **kwargs,
        )  # fmt: skip
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    short = layout.longest <= LONGEST_ROW and not (sliding_window and layout.longest > sliding_window)
    if short and not dropout and query.device.type == "cpu":
        rows = _row_attention(layout.to_rows(query), layout.to_rows(key), layout.to_rows(value), layout.causal, scale)
        return layout.to_packed(rows), None
    return _looped_attention(query, key, value, layout, scale, dropout, sliding_window), None


def _row_attention(query: Tensor, key: Tensor, value: Tensor, causal: Tensor, scaling: float) -> Tensor:
    """[B, H, L, D] plain attention: on CPUs two batched products beat the fused kernel at these lengths."""
    rows, heads, length, width = query.shape
    groups = heads // key.shape[1]
    # All query heads of one key head are stacked along the length: keys are never repeated.
    stacked = query.reshape(rows, key.shape[1], groups * length, width)
    scores = (stacked @ key.transpose(2, 3)).view(rows, key.shape[1], groups, length, length) * scaling
    weights = scores.masked_fill(~causal, float("-inf")).softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights.view(rows, key.shape[1], groups * length, length) @ value).view(rows, heads, length, width)


def _looped_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    layout: Layout,
    scaling: float,
    dropout: float,
    sliding_window: int | None,
) -> Tensor:
    """Fused attention, one sequence after another."""
    grouped = query.shape[1] != key.shape[1]
    pieces = []
    for start, end in zip(layout.starts, layout.ends, strict=True):
        here = slice(start, end)
        window = _window_mask(end - start, sliding_window, query.device)
        pieces.append(
            F.scaled_dot_product_attention(
                query[:, :, here], key[:, :, here], value[:, :, here],
                attn_mask=window, is_causal=window is None, dropout_p=dropout, scale=scaling, enable_gqa=grouped,
            )
        )  # fmt: skip
    return torch.cat(pieces, dim=2).transpose(1, 2)


def _window_mask(length: int, sliding_window: int | None, device: torch.device) -> Tensor | None:
    """[length, length] True where attention is allowed; None when the window covers the whole sequence."""
    if sliding_window is None or length <= sliding_window:
        return None
    index = torch.arange(length, device=device)
    distance = index[:, None] - index[None, :]
    return (distance >= 0) & (distance < sliding_window)


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
