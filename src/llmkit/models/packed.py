"""One forward pass over many sequences laid end to end, without padding and without a dense mask."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from llmkit.models.layout import Layout
from llmkit.models.shared_layout import SharedLayout
from llmkit.types import Batch

ATTENTION = "llmkit"
"""Name of our attention in transformers' registry; models are loaded with it."""
ATTENTION_LAYERS = {"full_attention", "sliding_attention"}
"""Kinds of layers, as configurations name them, that can be told where sequences end."""

_carrying: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()
keeping: WeakSet[nn.Module] = WeakSet()
"""Backbones that give the hidden states of the tokens `kept` alone."""


def supports_packing(model: nn.Module) -> bool:
    """Whether the model's attention can be told where sequences end.

    Models outside transformers' attention registry, those that `loading` gave another attention, and those with an
    adapter that puts something beside each sequence go one sequence at a time instead; so do those with recurrent
    layers, which carry a state from token to token.
    """
    if goes_one_by_one(model):
        return False
    attention = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return attention == ATTENTION and not _carries_state(model)


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
        return model(**packed_inputs(batch), logits_to_keep=positions).logits[0]
    return _one_by_one(batch, positions, lambda token_ids: model(input_ids=token_ids, use_cache=False).logits)


def packed_hidden(model: nn.Module, backbone: nn.Module, batch: Batch, positions: Tensor) -> Tensor:
    """[N, H] last hidden states at the chosen positions of a packed batch.

    Args:
        model: what `backbone` is a part of.
    """
    if supports_packing(model):
        if backbone in keeping:
            return backbone(**packed_inputs(batch), kept=positions).last_hidden_state[0]
        return backbone(**packed_inputs(batch)).last_hidden_state[0].index_select(0, positions)
    return _one_by_one(batch, positions, lambda ids: backbone(input_ids=ids, use_cache=False).last_hidden_state)


def sequence_ids(batch: Batch) -> Tensor:
    """[T] which sequence each token belongs to, from 0; what sequences share belongs to the first of them."""
    ends = torch.tensor(batch.sequence_ends, device=batch.token_ids.device)
    return torch.searchsorted(ends, torch.arange(len(batch.token_ids), device=ends.device), right=True)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with its tensors on `device`."""
    return replace(
        batch,
        token_ids=batch.token_ids.to(device),
        position_ids=batch.position_ids.to(device),
        loss_weights=batch.loss_weights.to(device),
    )


def packed_inputs(batch: Batch) -> dict[str, Any]:
    """What a model of transformers takes for a packed batch."""
    device = batch.token_ids.device
    return {
        "input_ids": batch.token_ids[None],
        "position_ids": batch.position_ids[None],
        # A 4-D mask is passed through by transformers as it is; our attention never reads it.
        "attention_mask": torch.empty(1, 1, 1, 1, device=device),
        "use_cache": False,
        "layout": Layout(batch.sequence_ends, device) if batch.prefixes is None else SharedLayout(batch),
    }


def _one_by_one(batch: Batch, positions: Tensor, run: Callable[[Tensor], Tensor]) -> Tensor:
    assert batch.prefixes is None, "only a packed forward knows of shared prompts"
    pieces = []
    start = 0
    for end in batch.sequence_ends:
        inside = positions[(positions >= start) & (positions < end)] - start
        if len(inside):
            given = run(batch.token_ids[None, start:end])[0]
            # An adapter's virtual tokens come first and give something too.
            pieces.append(given[len(given) - (end - start) + inside])
        start = end
    return torch.cat(pieces)


def _carries_state(model: nn.Module) -> bool:
    """Whether layers other than attention mix tokens: recurrent ones, and the convolutions before them."""
    if model not in _carrying:
        config: Any = model.config
        kinds = set(getattr(config.get_text_config(), "layer_types", None) or ())
        has_convolution = any(isinstance(module, nn.Conv1d) for module in model.modules())
        _carrying[model] = has_convolution or not kinds <= ATTENTION_LAYERS
    return _carrying[model]


class AttentionPlan:
    """Attention that somebody else computes for a packed batch, such as an engine whose keys lie in a cache."""

    def attend(
        self, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float, **options: Any
    ) -> Tensor:
        """Attention of one layer; called once for each, in the order in which they run.

        Args:
            query: [1, H, T, D]; key and value: [1, H_kv, T, D].
            options: what the architecture asks for besides: `sliding_window`, `softcap`, `s_aux`.
        Returns: [1, T, H, D].
        """
        raise NotImplementedError


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    layout: Layout | SharedLayout | AttentionPlan | None = None,
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
    if isinstance(layout, AttentionPlan):
        return layout.attend(module, query, key, value, scale, sliding_window=sliding_window, **kwargs), None
    return layout.attend(query, key, value, scale, dropout, sliding_window), None


AttentionInterface.register(ATTENTION, packed_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
