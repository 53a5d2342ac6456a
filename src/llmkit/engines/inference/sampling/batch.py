"""One token for every row of a batch, each row by its own rules and its own random numbers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.contract import TokenScores
from llmkit.engines.inference.sampling.distribution import (
    FREE_TO_READ,
    inverse_cdf,
    truncate,
    truncate_ahead,
    truncate_sorted,
)
from llmkit.engines.inference.sampling.edits import edit
from llmkit.engines.inference.sampling.failures import failure_of
from llmkit.engines.inference.sampling.plain import PlainDraws, PlainSampler
from llmkit.engines.inference.sampling.scores import Scored, prompt_scores, token_scores
from llmkit.engines.inference.sampling.state import SamplerState
from llmkit.engines.inference.sampling.uniform import uniform
from llmkit.engines.inference.transfers import pick, put, to_device, to_host
from llmkit.errors import EngineError

NO_SCORES = TokenScores(None)
__all__ = ["Drawn", "SamplerState", "draw", "prompt_scores"]


class Drawn(NamedTuple):
    """B tokens.

    Attributes:
        token_ids: B ids; -1 for a row that failed.
        scores: B.
        failures: why nothing could be drawn for a row; its batch mates are none the worse for it.
    """

    token_ids: list[int]
    scores: list[TokenScores]
    failures: dict[int, EngineError]

    def replace(self, rows: Sequence[int], others: "Drawn") -> None:
        """Take what others drew for some of the rows."""
        for row, token, score in zip(rows, others.token_ids, others.scores, strict=True):
            self.token_ids[row], self.scores[row] = token, score
        self.failures.update((rows[row], failure) for row, failure in others.failures.items())


@torch.inference_mode()
def draw(logits: Tensor, states: Sequence[SamplerState], plain: PlainSampler | None = None) -> Drawn:
    """Draw the next token of every row. A row's result depends on its logits and its state alone.

    Args:
        logits: [B, V] of any float type; not changed.
        states: B rows of one context; nothing is accepted here.
        plain: draws the rows that have no rule but temperature; None does it here.
    """
    plain_rows = [row for row, state in enumerate(states) if state.is_plain] if plain is not None else []
    if plain is None or not plain_rows:
        return _draw(logits, states)
    drawn = _draw_plain(logits, states, plain_rows, plain)
    if len(plain_rows) < len(states):
        others = sorted(set(range(len(states))) - set(plain_rows))
        some = _draw(pick(logits, others), [states[row] for row in others])
        drawn.replace(others, some)
    return drawn


def _draw_plain(logits: Tensor, states: Sequence[SamplerState], rows: Sequence[int], plain: PlainSampler) -> Drawn:
    """What `plain` draws, in its rows of a whole batch."""
    drawn = Drawn([-1] * len(states), [NO_SCORES] * len(states), {})
    for row, token, logprob in zip(
        rows, *plain(logits, PlainDraws.of(rows, [states[row] for row in rows])), strict=True
    ):
        if math.isnan(logprob):
            drawn.failures[row] = failure_of(logits[row], states[row])
            continue
        drawn.token_ids[row] = token
        if states[row].sampling.wants_logprobs:
            drawn.scores[row] = TokenScores(logprob)
    return drawn


def _draw(logits: Tensor, states: Sequence[SamplerState], *, sorts: bool = False) -> Drawn:
    """Draw on the device, and read what came of it in one transfer.

    Args:
        sorts: look at whole rows for top-k and top-p, where their likeliest tokens were not enough.
    """
    num_drawable = states[0].context.num_drawable
    edited = [row for row, state in enumerate(states) if state.edits]
    exact = scaled = logits.float()
    if all(state.is_plain and state.is_greedy and not state.sampling.wants_logprobs for state in states):
        return _likeliest_only(exact, states)
    if any(state.temperature != 1 for state in states):
        scaled = exact / _temperatures(states, logits.device)
    model_logprobs = scaled.log_softmax(dim=-1)
    drawable, logprobs = exact[:, :num_drawable], model_logprobs[:, :num_drawable]
    if edited:
        changed = drawable.clone() if len(edited) == len(states) else pick(drawable, edited)
        edit(changed, [states[row] for row in edited])
        logprobs = _with_rows(logprobs, edited, _scaled_logprobs(changed, [states[row] for row in edited]))
        if any(states[row].is_greedy for row in edited):
            drawable = _with_rows(drawable, edited, changed)
    logprobs, unresolved = _truncated(logprobs, states, sorts=sorts)
    tokens = _choose(drawable, logprobs, states)
    chosen = logprobs.gather(1, tokens[:, None])[:, 0]
    scored: list[Scored] = []
    if edited or any(state.wants_scores or state.truncates for state in states):
        scored = token_scores(logits, model_logprobs, logprobs, tokens, states)
    drawn, again = _read(logits, states, tokens, chosen, unresolved, scored)
    if again:
        drawn.replace(again, _draw(pick(logits, again), [states[row] for row in again], sorts=True))
    return drawn


def _read(
    logits: Tensor, states: Sequence[SamplerState], tokens: Tensor, chosen: Tensor, unresolved: Tensor | None,
    scored: Sequence[Scored],
) -> tuple[Drawn, list[int]]:  # fmt: skip
    """What was drawn, in one transfer, and the rows that have to be sorted for it.

    Args:
        tokens: [B] drawn, and `chosen` [B] their log-probabilities.
        unresolved: [B] True for rows that have to be sorted; None where none has to.
        scored: what is to be reported; empty where that is `chosen`.
    """
    there = [tokens, chosen, *([] if unresolved is None else [unresolved])]
    found = iter(to_host([*there, *(tensor for part in scored for tensor in part.tensors)]))
    token_ids: list[int] = next(found).astype(np.int64).tolist()
    drawn_logprobs: list[float] = next(found).tolist()
    again = [] if unresolved is None else np.flatnonzero(next(found)).tolist()
    failed = [row for row, logprob in enumerate(drawn_logprobs) if not math.isfinite(logprob) and row not in again]
    scores = [TokenScores(logprob) for logprob in drawn_logprobs]
    for part in scored:
        for row, score in part.read(found):
            scores[row] = score
    scores = [
        score if state.sampling.wants_logprobs else NO_SCORES for score, state in zip(scores, states, strict=True)
    ]
    failures = {row: failure_of(logits[row], states[row]) for row in failed}
    for row in failed:
        token_ids[row], scores[row] = -1, NO_SCORES
    return Drawn(token_ids, scores, failures), again


def _likeliest_only(logits: Tensor, states: Sequence[SamplerState]) -> Drawn:
    """Greedy rows whose log-probabilities nobody asks for need no sums over the vocabulary."""
    tokens = _likeliest(logits[:, : states[0].context.num_drawable])
    numbers, greatest = to_host([tokens, logits.gather(1, tokens[:, None])[:, 0]])
    token_ids: list[int] = numbers.astype(np.int64).tolist()
    failures = {row: failure_of(logits[row], states[row]) for row in np.flatnonzero(~np.isfinite(greatest)).tolist()}
    for row in failures:
        token_ids[row] = -1
    return Drawn(token_ids, [NO_SCORES] * len(states), failures)


def _temperatures(states: Sequence[SamplerState], device: torch.device) -> Tensor:
    return to_device(np.array([state.temperature for state in states], np.float32), device)[:, None]


def _scaled_logprobs(logits: Tensor, states: Sequence[SamplerState]) -> Tensor:
    return (logits / _temperatures(states, logits.device)).log_softmax(dim=-1)


def _truncated(logprobs: Tensor, states: Sequence[SamplerState], *, sorts: bool) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities with what top-k, top-p and min-p leave out at -inf, and [B] rows that have to be sorted."""
    rows = [row for row, state in enumerate(states) if state.truncates]
    if not rows:
        return logprobs, None
    rules = [states[row].sampling for row in rows]
    device, size = logprobs.device, logprobs.shape[1]
    limits = (
        to_device(np.array([min(rule.top_k or size, size) for rule in rules]), device),
        to_device(np.array([rule.top_p for rule in rules], np.float32), device),
        to_device(np.array([rule.min_p for rule in rules], np.float32), device),
    )
    some = logprobs if len(rows) == len(states) else pick(logprobs, rows)
    if sorts:
        return _with_rows(logprobs, rows, truncate_sorted(some, *limits)), None
    if device.type in FREE_TO_READ:
        return _with_rows(logprobs, rows, truncate(some, *limits)), None
    kept, unresolved = truncate_ahead(some, *limits)
    whole = put(torch.zeros(len(states), dtype=torch.bool, device=device), rows, unresolved)
    return _with_rows(logprobs, rows, kept), whole


def _choose(drawable: Tensor, logprobs: Tensor, states: Sequence[SamplerState]) -> Tensor:
    """[B] tokens: the likeliest of greedy rows, drawn ones of the others."""
    greedy = [state.is_greedy for state in states]
    if all(greedy):
        return _likeliest(drawable)
    uniforms = uniform([state.seed for state in states], [state.num_drawn for state in states])
    drawn = inverse_cdf(logprobs, to_device(uniforms, logprobs.device))
    if not any(greedy):
        return drawn
    return torch.where(to_device(np.array(greedy), drawn.device), _likeliest(drawable), drawn)


def _likeliest(logits: Tensor) -> Tensor:
    """[B] the first of the greatest of [B, V] float32 logits."""
    if logits.device.type != "cpu":
        return logits.argmax(dim=-1)
    # NumPy's search is vectorised, and an order of magnitude faster than PyTorch's on the CPU.
    return torch.from_numpy(logits.numpy().argmax(axis=-1))


def _with_rows(values: Tensor, rows: Sequence[int], new: Tensor) -> Tensor:
    """`values` with some rows replaced; neither is changed."""
    if len(rows) == values.shape[0]:
        return new
    return put(values.to(new.dtype, copy=True), rows, new)
