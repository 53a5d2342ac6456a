"""Logits as the rules of each row want them: masks, penalties and bias, for the rows that ask."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.engines.inference.sampling.structure import structure_masks

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
            logits[structured] = logits[structured].masked_fill_(out, MINUS_INFINITY)
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
        torch.from_numpy(np.repeat([row for row, _ in rows], lengths)).to(device),
        torch.from_numpy(np.concatenate([token_ids for token_ids, _ in seen])).to(device),
    )
    strengths = np.array([(p.repetition, p.presence, p.frequency) for _, p in rows], dtype=np.float32)
    repetition, presence, frequency = torch.from_numpy(np.repeat(strengths, lengths, axis=0)).to(device).unbind(1)
    counts = torch.from_numpy(np.concatenate([counts for _, counts in seen])).to(device)
    values = logits[where]
    values = torch.where(values > 0, values / repetition, values * repetition)
    logits[where] = values - presence * (counts > 0) - frequency * counts


def _add_bias(logits: Tensor, states: Sequence[SamplerState]) -> None:
    biased = [(row, state.bias) for row, state in enumerate(states) if state.bias is not None]
    if not biased:
        return
    rows = torch.from_numpy(np.repeat([row for row, _ in biased], [len(token_ids) for _, (token_ids, _) in biased]))
    token_ids = torch.from_numpy(np.concatenate([token_ids for _, (token_ids, _) in biased]))
    added = torch.from_numpy(np.concatenate([added for _, (_, added) in biased]))
    logits[rows.to(logits.device), token_ids.to(logits.device)] += added.to(logits.device)
