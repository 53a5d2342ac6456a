"""Attention over sequences that begin alike: what they share is there once, and each goes on from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask

from llmkit.models.attention import LONGEST_ROW, fused_attention
from llmkit.models.compiled_attention import Piece, attend_in_pieces, can_attend
from llmkit.models.cuda_attention import can_run_flex, family_mask, flex
from llmkit.models.row_attention import row_attention
from llmkit.models.rows import Rows, from_rows, order_of_tokens, row_groups
from llmkit.types import Batch

LONGEST_PROMPT = 2048
"""Tokens of a prompt up to which its branches are lifted into rows: their scores are held as a whole."""


@dataclass(frozen=True)
class Branches:
    """One prompt and the completions that go on from it, which follow it in the batch.

    Attributes:
        prompt: the tokens that are shared; a sequence that shares nothing is a prompt without branches.
        spans: of the tokens of each branch.
        prompt_row: the prompt as a row.
        groups: the branches as rows, those of similar length together.
        order: [tokens of prompt and branches] where each one stands in the rows, end to end.
    """

    prompt: slice
    spans: list[slice]
    prompt_row: Rows
    groups: list[Rows]
    order: Tensor

    @property
    def longest(self) -> int:
        """Tokens of the longest branch."""
        return max((group.longest for group in self.groups), default=0)

    @property
    def num_prompt_tokens(self) -> int:
        """Tokens that are shared."""
        return self.prompt.stop - self.prompt.start

    def fit_rows(self, sliding_window: int | None) -> bool:
        """Whether they are short enough to be lifted into rows, with every token in sight."""
        in_sight = not sliding_window or self.num_prompt_tokens + self.longest <= sliding_window
        return in_sight and self.num_prompt_tokens <= LONGEST_PROMPT and self.longest <= LONGEST_ROW


class SharedLayout:
    """Where prompts and their branches lie in a packed batch; in the place of `Layout` where prompts are shared."""

    def __init__(self, batch: Batch) -> None:
        assert batch.prefixes is not None
        self._device = batch.token_ids.device
        self._families = _families(batch.sequence_ends, batch.prefixes)
        self.groups = [_branches(prompt, spans, self._device) for prompt, spans in self._families]
        self._masks: dict[int | None, BlockMask] = {}

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, sliding_window: int | None
    ) -> Tensor:
        """[1, T, H, D] attention of each token to what is before it in its own sequence.

        Args:
            query: [1, H, T, D]; key and value: [1, H_kv, T, D].
        """
        if not dropout and can_run_flex(query):
            return flex(query, key, value, self.mask(sliding_window), scaling)
        fits = query.device.type == "cpu" and not dropout
        if fits and all(group.fit_rows(sliding_window) for group in self.groups) and can_attend(query, key, value):
            return attend_in_pieces(query, key, value, self.pieces, scaling)
        pieces = []
        for group in self.groups:
            if fits and group.fit_rows(sliding_window):
                pieces.append(attend_in_rows(group, query, key, value, scaling))
            else:
                pieces += attend_in_turn(group, query, key, value, scaling, dropout, sliding_window)
        return torch.cat(pieces, dim=1)

    @cached_property
    def pieces(self) -> list[Piece]:
        """All prompts together, and then the branches of each."""
        prompts = [prompt for prompt, _ in self._families]
        branches = [
            Piece([spans[number] for number in rows.members], prompt)
            for (prompt, spans), group in zip(self._families, self.groups, strict=True)
            for rows in group.groups
        ]
        return [Piece([prompts[n] for n in rows.members]) for rows in row_groups(prompts, self._device)] + branches

    def mask(self, sliding_window: int | None) -> BlockMask:
        """For FlexAttention; made once for all layers."""
        if sliding_window not in self._masks:
            self._masks[sliding_window] = family_mask(self._families, sliding_window, self._device)
        return self._masks[sliding_window]


def attend_in_rows(group: Branches, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
    """[1, n, H, D] of the prompt and of all branches, lifted into right-padded rows."""
    found = []
    for rows in (group.prompt_row, *group.groups):
        queries, keys, values = (rows.to_rows(states) for states in (query, key, value))
        if rows is not group.prompt_row:
            keys, values = _after_prompt(keys, key, group), _after_prompt(values, value, group)
        found.append(from_rows(row_attention(queries, keys, values, scaling)))
    return torch.cat(found).index_select(0, group.order)[None]


def attend_in_turn(
    group: Branches,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float,
    dropout: float,
    sliding_window: int | None,
) -> list[Tensor]:
    """[1, n, H, D] of the prompt and of each branch, one after another through the fused kernel, on any device.

    A branch takes the prompt's queries along, whose results are there already: the kernel knows no other causal form,
    and attention alone is little beside the rest of the model.
    """
    pieces = []
    for span in [slice(group.prompt.stop, group.prompt.stop), *group.spans]:
        whole = [_joined(states, group.prompt, span) for states in (query, key, value)]
        found = fused_attention(whole[0], whole[1], whole[2], scaling, dropout, sliding_window).transpose(1, 2)
        pieces.append(found[:, group.num_prompt_tokens :] if span.stop > span.start else found)
    return pieces


def _families(ends: Sequence[int], prefixes: Sequence[tuple[int, int]]) -> list[tuple[slice, list[slice]]]:
    """Each prompt with its branches, in order. The sequence that holds a prompt is itself a branch of it."""
    families: list[tuple[slice, list[slice]]] = []
    for start, end, prefix in zip([0, *ends[:-1]], ends, prefixes, strict=True):
        if prefix[0] == prefix[1]:
            families.append((slice(start, end), []))
            continue
        prompt, spans = families[-1]
        if not spans:
            # The first to go on from it: the sequence before is divided into prompt and branch.
            spans.append(slice(prefix[1], prompt.stop))
            families[-1] = (slice(prompt.start, prefix[1]), spans)
        assert prefix == (families[-1][0].start, families[-1][0].stop), "what shares a prompt follows it"
        spans.append(slice(start, end))
    return families


def _branches(prompt: slice, spans: list[slice], device: torch.device) -> Branches:
    prompt_row = row_groups([prompt], device)[0]
    groups = row_groups(spans, device)
    order = order_of_tokens([prompt_row], [prompt])
    if spans:
        order = torch.cat([order, order_of_tokens(groups, spans) + prompt_row.longest])
    return Branches(prompt, spans, prompt_row, groups, order.to(device))


def _after_prompt(rows: Tensor, states: Tensor, group: Branches) -> Tensor:
    """[B, H, P + L, D] the keys or values of rows, each behind those of the prompt."""
    prompt = states[:, :, group.prompt].expand(len(rows), -1, -1, -1)
    return torch.cat([prompt, rows], dim=2)


def _joined(states: Tensor, prompt: slice, span: slice) -> Tensor:
    """[1, H, P + n, D] the prompt's tokens and those of a branch."""
    return torch.cat([states[:, :, prompt], states[:, :, span]], dim=2)
