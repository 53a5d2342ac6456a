"""Attention over sequences that begin alike: what they share is there once, and each goes on from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llmkit.models.attention import LONGEST_ROW, branch_attention, fused_attention, row_attention
from llmkit.types import Batch

LONGEST_PROMPT = 2048
"""Tokens of a prompt up to which its branches are lifted into rows: their scores are held as a whole."""


@dataclass(frozen=True)
class Branches:
    """One prompt and the completions that go on from it, which follow it in the batch.

    Attributes:
        prompt: the tokens that are shared; a sequence that shares nothing is a prompt without branches.
        spans: of the tokens of each branch.
        lift: [B * longest] which token stands at each place of the rows; padding repeats the last.
        lower: [tokens of all branches] which place of the rows each one stands at.
        causal: [n, n] lower triangle, as long as the longest branch or, where it is lifted too, the prompt.
    """

    prompt: slice
    spans: list[slice]
    lift: Tensor
    lower: Tensor
    causal: Tensor

    @property
    def longest(self) -> int:
        """Tokens of the longest branch."""
        return max((span.stop - span.start for span in self.spans), default=0)

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
        self.groups = [
            _branches(prompt, spans, batch.token_ids.device)
            for prompt, spans in _families(batch.sequence_ends, batch.prefixes)
        ]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, dropout: float, sliding_window: int | None
    ) -> Tensor:
        """[1, T, H, D] attention of each token to what is before it in its own sequence.

        Args:
            query: [1, H, T, D]; key and value: [1, H_kv, T, D].
        """
        pieces = []
        for group in self.groups:
            if query.device.type == "cpu" and not dropout and group.fit_rows(sliding_window):
                pieces += attend_in_rows(group, query, key, value, scaling)
            else:
                pieces += attend_in_turn(group, query, key, value, scaling, dropout, sliding_window)
        return torch.cat(pieces, dim=1)


def attend_in_rows(group: Branches, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> list[Tensor]:
    """[1, n, H, D] of the prompt and of all branches, the latter lifted into right-padded rows."""
    length = group.num_prompt_tokens
    prompt_query, prompt_key, prompt_value = (states[:, :, group.prompt] for states in (query, key, value))
    if length <= LONGEST_ROW:
        first = row_attention(prompt_query, prompt_key, prompt_value, group.causal[:length, :length], scaling)
    else:
        first = fused_attention(prompt_query, prompt_key, prompt_value, scaling, 0.0, None)
    pieces = [first.transpose(1, 2)]
    if group.spans:
        found = branch_attention(
            _lifted(query, group),
            _lifted(key, group),
            _lifted(value, group),
            prompt_key[0],
            prompt_value[0],
            group.causal[: group.longest, : group.longest],
            scaling,
        )
        pieces.append(found.transpose(1, 2).flatten(0, 1).index_select(0, group.lower)[None])
    return pieces


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
    lengths = torch.tensor([span.stop - span.start for span in spans], dtype=torch.int64)
    longest = int(lengths.max()) if spans else 0
    columns = torch.arange(longest)
    starts = torch.tensor([span.start for span in spans], dtype=torch.int64)
    rows = (starts[:, None] + columns).clamp(max=spans[-1].stop - 1 if spans else 0)
    inside = (columns < lengths[:, None]).flatten().nonzero().flatten()
    size = max(longest, min(prompt.stop - prompt.start, LONGEST_ROW))
    causal = torch.ones(size, size, dtype=torch.bool).tril()
    return Branches(prompt, spans, rows.flatten().to(device), inside.to(device), causal.to(device))


def _lifted(states: Tensor, group: Branches) -> Tensor:
    """[1, H, T, D] to [B, H, longest, D]."""
    heads, _, width = states.shape[1:]
    rows = states[0].transpose(0, 1).index_select(0, group.lift)
    return rows.view(len(group.spans), group.longest, heads, width).transpose(1, 2)


def _joined(states: Tensor, prompt: slice, span: slice) -> Tensor:
    """[1, H, P + n, D] the prompt's tokens and those of a branch."""
    return torch.cat([states[:, :, prompt], states[:, :, span]], dim=2)
