"""Attention over a whole packed batch as rows of sequences: batched products, and compiled loops between them.

One pass lays every token where a product wants it and brings it back, so that no gradient is ever as long as the batch
for a part of it alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from llmkit.models.kernels import library
from llmkit.models.kernels.structures import RowsTask, SoftmaxTask

BLOCK = 128
"""Queries that are taken together: keys behind the last one of them are not looked at."""


@dataclass(frozen=True)
class Piece:
    """Sequences of similar length that are taken together.

    Attributes:
        spans: of their tokens.
        prompt: the tokens that all of them go on from; empty where there are none. Its own attention comes in a piece
            before this one.
    """

    spans: Sequence[slice]
    prompt: slice = field(default_factory=lambda: slice(0, 0))

    @cached_property
    def starts(self) -> Tensor:
        """[B] first token of each sequence."""
        return torch.tensor([span.start for span in self.spans], dtype=torch.int32)

    @cached_property
    def lengths(self) -> Tensor:
        """[B] tokens of each sequence."""
        return torch.tensor([span.stop - span.start for span in self.spans], dtype=torch.int32)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest sequence."""
        return int(self.lengths.max())

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that are shared."""
        return self.prompt.stop - self.prompt.start

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Start and end of each block of queries, and how many keys its last one sees."""
        for start in range(0, self.longest, BLOCK):
            end = min(start + BLOCK, self.longest)
            yield start, end, self.num_prompt_tokens + end


def attend_in_pieces(query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scaling: float) -> Tensor:
    """[1, T, H, D] causal attention of each token to its prompt and its own sequence; `can_attend` says of which.

    Args:
        query: [1, H, T, D]; key and value: [1, H_kv, T, D].
        pieces: every token in one of them.
    """
    if torch.is_autocast_enabled("cpu"):
        kind = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(kind), key.to(kind), value.to(kind)
    tokens = (states[0].transpose(0, 1).contiguous() for states in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        return _Attention.apply(*tokens, pieces, scaling)[None]  # pyright: ignore[reportOptionalSubscript] - untyped in torch


def can_attend(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the compiled loops take these states."""
    if torch.is_autocast_enabled("cpu"):
        return all(library.is_plain(states) for states in (query, key, value)) and library.takes(
            torch.empty(0, dtype=torch.get_autocast_dtype("cpu"))
        )
    return library.takes(query, key, value)


class _Attention(torch.autograd.Function):
    """softmax(scaling * Q K^T) V, a block of queries at a time. All query heads of one key head stand side by side, so
    that keys are never repeated. With P the probabilities and dP = dO V^T, scores have the gradient
    `P * (dP - sum(P * dP))`.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, pieces: Sequence[Piece], scaling: float) -> Tensor:
        output = torch.empty_like(query)
        group = query.shape[1] // key.shape[1]
        kept = []
        for piece in pieces:
            queries, keys, values = _lift(query, piece, key.shape[1], False), _lift(key, piece), _lift(value, piece)
            outputs = torch.empty_like(queries)
            for start, end, seen in piece.blocks():
                block = slice(start * group, end * group)
                scores = torch.bmm(queries[:, block], keys[:, :seen].transpose(1, 2))
                task = _softmax_task(piece, scores, start, end, group, scaling)
                library.call("softmax_forward", scores.dtype, task, scores)
                outputs[:, block] = torch.bmm(scores, values[:, :seen])
                kept.append(scores)
            _lower(outputs, output, piece, key.shape[1], False)
        ctx.save_for_backward(query, key, value, *kept)
        ctx.pieces, ctx.scaling = pieces, scaling
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_output: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride] - autograd's own takes any gradients
        query, key, value, *kept = ctx.saved_tensors
        by_output, probabilities = by_output.contiguous(), iter(kept)
        gradients = by_query, by_key, by_value = [torch.empty_like(states) for states in (query, key, value)]
        kv_heads, group = key.shape[1], query.shape[1] // key.shape[1]
        for piece in ctx.pieces:
            queries, keys, values = _lift(query, piece, kv_heads, False), _lift(key, piece), _lift(value, piece)
            upstream, by_queries = _lift(by_output, piece, kv_heads, False), torch.empty_like(queries)
            by_keys, by_values = torch.zeros_like(keys), torch.zeros_like(values)
            for start, end, seen in piece.blocks():
                block, chosen = slice(start * group, end * group), next(probabilities)
                by_values[:, :seen] += torch.bmm(chosen.transpose(1, 2), upstream[:, block])
                scores = torch.bmm(upstream[:, block], values[:, :seen].transpose(1, 2))
                task = _softmax_task(piece, scores, start, end, group, ctx.scaling)
                library.call("softmax_backward", scores.dtype, task, chosen, scores)
                by_queries[:, block] = torch.bmm(scores, keys[:, :seen])
                by_keys[:, :seen] += torch.bmm(scores.transpose(1, 2), queries[:, block])
            _lower(by_queries, by_query, piece, kv_heads, False)
            _lower(by_keys, by_key, piece)
            _lower(by_values, by_value, piece)
        return *gradients, None, None


def _lift(tokens: Tensor, piece: Piece, kv_heads: int | None = None, with_prompt: bool = True) -> Tensor:
    """[B * H_kv, (P + L) * H / H_kv, D] rows of [T, H, D] tokens."""
    task = _rows_task(tokens, piece, kv_heads, with_prompt)
    length = (task.prompt + task.length) * (task.heads // task.kv_heads)
    rows = torch.empty(task.batch * task.kv_heads, length, task.width, dtype=tokens.dtype)
    library.call("lift_rows", tokens.dtype, task, tokens, rows)
    return rows


def _lower(rows: Tensor, tokens: Tensor, piece: Piece, kv_heads: int | None = None, with_prompt: bool = True) -> None:
    """Bring rows back to where `_lift` had them from; what they have for the prompt is added."""
    library.call("lower_rows", tokens.dtype, _rows_task(tokens, piece, kv_heads, with_prompt), rows, tokens)


def _rows_task(tokens: Tensor, piece: Piece, kv_heads: int | None, with_prompt: bool) -> RowsTask:
    return RowsTask(
        batch=len(piece.spans),
        heads=tokens.shape[1],
        kv_heads=kv_heads or tokens.shape[1],
        width=tokens.shape[2],
        length=piece.longest,
        prompt=piece.num_prompt_tokens if with_prompt else 0,
        prompt_start=piece.prompt.start,
        threads=torch.get_num_threads(),
        starts=library.address(piece.starts),
        lengths=library.address(piece.lengths),
    )


def _softmax_task(piece: Piece, scores: Tensor, start: int, end: int, group: int, scaling: float) -> SoftmaxTask:
    return SoftmaxTask(
        matrices=len(scores),
        queries=end - start,
        group=group,
        keys=scores.shape[2],
        visible=piece.num_prompt_tokens + start + 1,
        first=start,
        kv_heads=len(scores) // len(piece.spans),
        threads=torch.get_num_threads(),
        scaling=scaling,
        lengths=library.address(piece.lengths),
    )
