"""Packed attention on NVIDIA GPUs: one kernel for all sequences of a batch."""

import inspect
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

MaskMod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
HALVES = (torch.float16, torch.bfloat16)


def can_run_varlen(query: Tensor) -> bool:
    """Whether flash attention over sequences of their own lengths takes these: half precision on a GPU."""
    return query.device.type == "cuda" and query.dtype in HALVES and _varlen_kernel() is not None


def varlen_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    boundaries: Tensor,
    longest: int,
    scaling: float,
    sliding_window: int | None,
) -> Tensor:
    """[1, T, H, D] causal attention within each sequence.

    Args:
        query: [1, H, T, D]; key and value: [1, H_kv, T, D].
        boundaries: [B + 1] int32, where sequences begin, and T.
        longest: tokens of the longest sequence.
        sliding_window: tokens that each one sees, itself included; None is all.
    """
    kernel = _varlen_kernel()
    assert kernel is not None
    run, takes_groups = kernel
    groups = query.shape[1] // key.shape[1]
    queries, keys, values = (states[0].transpose(0, 1) for states in (query, key, value))
    options: dict[str, Any] = {"scale": scaling, "window_size": (sliding_window - 1 if sliding_window else -1, 0)}
    if groups > 1 and takes_groups:
        options["enable_gqa"] = True
    elif groups > 1:
        keys, values = (states.repeat_interleave(groups, dim=1) for states in (keys, values))
    return run(queries, keys, values, boundaries, boundaries, longest, longest, **options)[None]


def can_run_flex(query: Tensor) -> bool:
    """Whether FlexAttention has a compiled kernel with a backward pass here."""
    return query.device.type == "cuda"


def flex(query: Tensor, key: Tensor, value: Tensor, mask: BlockMask, scaling: float) -> Tensor:
    """[1, T, H, D] attention where the mask allows it; compiled on a GPU, plain elsewhere.

    Args:
        query: [1, H, T, D]; key and value: [1, H_kv, T, D].
    """
    run: Any = _compiled_flex() if query.is_cuda else flex_attention
    found = run(query, key, value, block_mask=mask, scale=scaling, enable_gqa=query.shape[1] != key.shape[1])
    return found.transpose(1, 2)


def family_mask(families: Sequence[tuple[slice, list[slice]]], window: int | None, device: torch.device) -> BlockMask:
    """What each token sees: what is before it in its own sequence, the prompt that it shares with others included.

    Args:
        families: each prompt with its branches, as they lie in the batch.
        window: tokens that each one sees, itself included; None is all.
    """
    sees = family_rule(families, window, device)
    end = max((spans[-1] if spans else prompt).stop for prompt, spans in families)
    return create_block_mask(sees, None, None, end, end, device=str(device))


def family_rule(families: Sequence[tuple[slice, list[slice]]], window: int | None, device: torch.device) -> MaskMod:
    """Whether the token at one index sees the token at another; see `family_mask`."""
    end = max((spans[-1] if spans else prompt).stop for prompt, spans in families)
    family, branch = torch.zeros(2, end, dtype=torch.int32)
    position = torch.zeros(end, dtype=torch.int32)
    for number, (prompt, spans) in enumerate(families):
        length = prompt.stop - prompt.start
        family[prompt], position[prompt] = number, torch.arange(length, dtype=torch.int32)
        for index, span in enumerate(spans, start=1):
            family[span], branch[span] = number, index
            position[span] = torch.arange(length, length + span.stop - span.start, dtype=torch.int32)
    family, branch, position = family.to(device), branch.to(device), position.to(device)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        own = (branch[key] == 0) | (branch[key] == branch[query])
        seen = (family[key] == family[query]) & own & (position[key] <= position[query])
        return seen if window is None else seen & (position[query] - position[key] < window)

    return sees


@cache
def _varlen_kernel() -> tuple[Any, bool] | None:
    """PyTorch's kernel, and whether it takes fewer heads of keys than of queries; None where it has none that fits."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters
    return (varlen_attn, "enable_gqa" in known) if {"scale", "window_size"} <= set(known) else None


@cache
def _compiled_flex() -> Any:
    # Batches differ in their number of tokens: one kernel for all of them.
    return torch.compile(flex_attention, dynamic=True)
