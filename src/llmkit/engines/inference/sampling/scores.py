"""Log-probabilities to report, of the distributions that each row asks for."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from llmkit.engines.inference.contract import TokenScores
from llmkit.engines.inference.sampling.state import GREEDY_BELOW, SamplerState
from llmkit.engines.inference.transfers import pick, to_device, to_host
from llmkit.types import SamplingParams

CHUNK_TOKENS = 128
"""Prompt tokens whose log-probabilities are in memory together."""


class Scored(NamedTuple):
    """Log-probabilities of rows that ask for the same kind, still on the device.

    Attributes:
        rows: N rows of the batch.
        num_top: N numbers of likeliest tokens that are asked for.
        tensors: [N] of the tokens; if any asks, [N, most] of the likeliest ones, and [N, most] their ids.
    """

    rows: Sequence[int]
    num_top: Sequence[int]
    tensors: list[Tensor]

    @classmethod
    def of(cls, rows: Sequence[int], logprobs: Tensor, tokens: Tensor, num_top: Sequence[int]) -> "Scored":
        """Find them in [N, V] log-probabilities."""
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        most = min(max(num_top, default=0), logprobs.shape[1])
        return cls(rows, num_top, [chosen, *(logprobs.topk(most, dim=1) if most else ())])

    def read(self, arrays: Iterator[np.ndarray]) -> list[tuple[int, TokenScores]]:
        """Rows and their scores, from what the tensors are on the host, which is taken from an iterator."""
        chosen = next(arrays).tolist()
        if len(self.tensors) == 1:
            return [(row, TokenScores(logprob)) for row, logprob in zip(self.rows, chosen, strict=True)]
        values, ids = next(arrays).tolist(), next(arrays).astype(np.int64).tolist()
        return [
            # What cannot be drawn has no place among the likeliest.
            (self.rows[row], TokenScores(chosen[row], tuple(pair for pair in
                zip(ids[row][:count], values[row], strict=False) if pair[1] > float("-inf"))))
            for row, count in enumerate(self.num_top)
        ]  # fmt: skip


def token_scores(
    logits: Tensor, scaled: Tensor, processed: Tensor, tokens: Tensor, states: Sequence[SamplerState]
) -> list[Scored]:
    """Scores of B drawn tokens, each row in one of the parts.

    Args:
        logits: [B, V] the model's.
        scaled: [B, V] log-probabilities after temperature and nothing else.
        processed: [B, D] those that were drawn from, D up to V, -inf where nothing is, not normalised.
        tokens: [B] int64.
        states: B rows.
    """
    kinds = [state.sampling.logprob_kind for state in states]
    parts: list[Scored] = []
    for kind in dict.fromkeys(kinds):
        rows = [row for row, other in enumerate(kinds) if other == kind]
        every = len(rows) == len(states)
        values = {"raw": logits, "processed": processed}.get(kind, scaled)
        values = values if every else pick(values, rows)
        if kind in ("raw", "processed"):
            values = values.float().log_softmax(dim=-1)
        counts = [states[row].sampling.num_top_logprobs for row in rows]
        parts.append(Scored.of(rows, values, tokens if every else pick(tokens, rows), counts))
    return parts


def prompt_scores(logits: Tensor, token_ids: Sequence[int], sampling: SamplingParams) -> list[TokenScores]:
    """Scores of prompt tokens.

    Nothing is drawn from a prompt's distributions, so `processed` is the same as `scaled` here.

    Args:
        logits: [T, V] after each place before the token, of any float type.
        token_ids: T tokens, the ones that followed.
        sampling: which kind, and how many of the likeliest.
    """
    if not token_ids:
        return []
    parts: list[Scored] = []
    tokens = to_device(np.array(token_ids), logits.device)
    temperature = sampling.temperature if sampling.temperature >= GREEDY_BELOW else 1.0
    for start in range(0, len(token_ids), CHUNK_TOKENS):
        chunk = logits[start : start + CHUNK_TOKENS].float()
        if sampling.logprob_kind != "raw":
            chunk = chunk / temperature
        some = tokens[start : start + CHUNK_TOKENS]
        rows = range(start, start + len(some))
        parts.append(Scored.of(rows, chunk.log_softmax(dim=-1), some, [sampling.num_top_logprobs] * len(some)))
    found = iter(to_host([tensor for part in parts for tensor in part.tensors]))
    return [score for part in parts for _, score in part.read(found)]
