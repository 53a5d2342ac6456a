"""Logits as the rules of each row want them: masks, penalties and bias, for the rows that ask."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.engines.inference.sampling.structure import structure_masks
from llmkit.engines.inference.transfers import pick, put, to_device

MINUS_INFINITY = float("-inf")


def edit(logits: Tensor, states: Sequence[SamplerState]) -> None:
    """Apply masks, penalties and bias in place, in this order.

    Args:
        logits: [R, V] float32, without padding of the vocabulary.
        states: R rows.
    """
    _mask_tokens(logits, states)
    structured = [row for row, state in enumerate(states) if state.structure is not None]
    if structured:
        structures = [state.structure for state in states if state.structure is not None]
        out = ~structure_masks(structures, logits.shape[1], logits.device)
        if len(structured) == len(states):
            logits.masked_fill_(out, MINUS_INFINITY)
        else:
            put(logits, structured, pick(logits, structured).masked_fill_(out, MINUS_INFINITY))
    _penalise(logits, states)
    _add_bias(logits, states)


def _mask_tokens(logits: Tensor, states: Sequence[SamplerState]) -> None:
    for row, state in enumerate(states):
        if state.banned is not None:
            logits[row].masked_fill_(state.banned, MINUS_INFINITY)
        # A structure has its own view of when it may end.
        if state.must_go_on and state.end_ids is not None and state.structure is None:
            logits[row].index_fill_(0, state.end_ids, MINUS_INFINITY)


def _penalise(logits: Tensor, states: Sequence[SamplerState]) -> None:
    """Repetition penalty (arXiv:1909.05858, section 4.1), then presence and frequency penalties."""
    rows = [(row, state.penalties) for row, state in enumerate(states) if state.penalties is not None]
    if not rows:
        return
    seen = [penalties.seen() for _, penalties in rows]
    lengths = [len(token_ids) for token_ids, _ in seen]
    device = logits.device
    where = (
        to_device(np.repeat([row for row, _ in rows], lengths), device),
        to_device(np.concatenate([token_ids for token_ids, _ in seen]), device),
    )
    strengths = np.array([(p.repetition, p.presence, p.frequency) for _, p in rows], dtype=np.float32)
    repetition, presence, frequency = to_device(np.repeat(strengths, lengths, axis=0), device).unbind(1)
    counts = to_device(np.concatenate([counts for _, counts in seen]), device)
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[where] = values - presence * (counts > 0) - frequency * counts


def _add_bias(logits: Tensor, states: Sequence[SamplerState]) -> None:
    biased = [(row, state.bias) for row, state in enumerate(states) if state.bias is not None]
    if not biased:
        return
    rows = np.repeat([row for row, _ in biased], [len(token_ids) for _, (token_ids, _) in biased])
    token_ids = np.concatenate([token_ids for _, (token_ids, _) in biased])
    added = np.concatenate([added for _, (_, added) in biased])
    where = to_device(rows, logits.device), to_device(token_ids, logits.device)
    logits[where] += to_device(added, logits.device)
