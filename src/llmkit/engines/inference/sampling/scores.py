"""Log-probabilities to report, of the distributions that each row asks for."""

from collections.abc import Sequence

import torch
from torch import Tensor

from llmkit.engines.inference.contract import TokenScores
from llmkit.engines.inference.sampling.state import GREEDY_BELOW, SamplerState
from llmkit.types import SamplingParams

CHUNK_TOKENS = 128
"""Prompt tokens whose log-probabilities are in memory together."""


def token_scores(
    logits: Tensor, scaled: Tensor, processed: Tensor, tokens: Tensor, states: Sequence[SamplerState]
) -> list[TokenScores]:
    """Scores of B drawn tokens.

    Args:
        logits: [B, V] the model's.
        scaled: [B, V] log-probabilities after temperature and nothing else.
        processed: [B, D] those that were drawn from, D up to V, -inf where nothing is, not normalised.
        tokens: [B] int64.
        states: B rows.
    """
    kinds = [state.sampling.logprob_kind for state in states]
    scores: list[TokenScores] = [TokenScores(None)] * len(states)
    for kind in dict.fromkeys(kinds):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        every = len(rows) == len(states)
        values = {"raw": logits, "processed": processed}.get(kind, scaled)
        values = values if every else values[rows]
        if kind in ("raw", "processed"):
            values = values.float().log_softmax(dim=-1)
        counts = [states[row].sampling.num_top_logprobs for row in rows]
        for row, score in zip(rows, _score(values, tokens if every else tokens[rows], counts), strict=True):
            scores[row] = score
    return scores


def prompt_scores(logits: Tensor, token_ids: Sequence[int], sampling: SamplingParams) -> list[TokenScores]:
    """Scores of prompt tokens.

    Nothing is drawn from a prompt's distributions, so `processed` is the same as `scaled` here.

    Args:
        logits: [T, V] after each place before the token, of any float type.
        token_ids: T tokens, the ones that followed.
        sampling: which kind, and how many of the likeliest.
    """
    scores: list[TokenScores] = []
    tokens = torch.tensor(list(token_ids), device=logits.device)
    temperature = sampling.temperature if sampling.temperature >= GREEDY_BELOW else 1.0
    for start in range(0, len(token_ids), CHUNK_TOKENS):
        chunk = logits[start : start + CHUNK_TOKENS].float()
        if sampling.logprob_kind != "raw":
            chunk = chunk / temperature
        some = tokens[start : start + CHUNK_TOKENS]
        scores += _score(chunk.log_softmax(dim=-1), some, [sampling.num_top_logprobs] * len(some))
    return scores


def _score(logprobs: Tensor, tokens: Tensor, num_top: Sequence[int]) -> list[TokenScores]:
    chosen: list[float] = logprobs.gather(1, tokens[:, None])[:, 0].tolist()
    most = min(max(num_top, default=0), logprobs.shape[1])
    if most == 0:
        return [TokenScores(logprob) for logprob in chosen]
    values, ids = (part.tolist() for part in logprobs.topk(most, dim=1))
    return [
        # What cannot be drawn has no place among the likeliest.
        TokenScores(chosen[row], tuple(pair for pair in zip(ids[row][:count], values[row], strict=False)
                                       if pair[1] > float("-inf")))
        for row, count in enumerate(num_top)
    ]  # fmt: skip
