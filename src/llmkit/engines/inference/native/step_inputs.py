"""From a plan to the tensors of a step."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.native.runner import Step
from llmkit.engines.inference.native.scheduler import Plan
from llmkit.engines.inference.native.sequences import Sequence


class Wanted(NamedTuple):
    """Which logits of a step are whose.

    Attributes:
        draws: sequences that draw a token after the step.
        rows: the row of logits of each.
        scored: sequences whose prompts are scored, and the rows of their logits, which may be none.
    """

    draws: list[Sequence]
    rows: list[int]
    scored: list[tuple[Sequence, range]]


class StepInputs:
    """Makes the tensors of steps; what did not change since the last step is not made again."""

    def __init__(self) -> None:
        self._drawing: list[Sequence] = []
        self._last: Step | None = None
        self._table = np.zeros((0, 0), dtype=np.int32)
        self._num_blocks: list[int] = []

    def build(self, plan: Plan) -> tuple[Step, Wanted]:
        """The tensors of a step, before it was computed."""
        sequences = list(plan.counts)
        if all(sequence.num_missing == 1 for sequence in sequences):
            step = self._drawing_step(sequences)
            return step, Wanted(sequences, list(range(len(sequences))), [])
        self._last = None
        return self._mixed_step(sequences, list(plan.counts.values()))

    def _drawing_step(self, sequences: list[Sequence]) -> Step:
        """Every sequence computes the token that it drew last."""
        tokens = torch.tensor([sequence.token_ids[-1] for sequence in sequences])
        positions = torch.tensor([sequence.num_computed for sequence in sequences])
        if self._last is not None and sequences == self._drawing:
            starts, last, adapters = self._last.query_starts, self._last.logit_positions, self._last.adapters
        else:
            starts = torch.arange(len(sequences) + 1, dtype=torch.int32)
            last = torch.arange(len(sequences))
            adapters = [sequence.request.asked.adapter for sequence in sequences]
            self._fill_table(sequences)
        step = Step(tokens, positions, starts, self._block_table(sequences), last, adapters)
        self._drawing, self._last = sequences, step
        return step

    def _mixed_step(self, sequences: list[Sequence], counts: list[int]) -> tuple[Step, Wanted]:
        tokens: list[int] = []
        positions: list[int] = []
        starts = [0]
        kept: list[int] = []
        wanted = Wanted([], [], [])
        for sequence, count in zip(sequences, counts, strict=True):
            first, end = sequence.num_computed, sequence.num_computed + count
            tokens += sequence.token_ids[first:end]
            positions += range(first, end)
            starts.append(len(tokens))
            whole = end == len(sequence.token_ids)
            if sequence.scores_prompt:
                # The logits after token t are about token t + 1; those after the prompt's last one draw.
                known = max(first, len(sequence.prompt_scores) - 1)
                scored = min(end, sequence.num_prompt - 1) - known
                wanted.scored.append((sequence, range(len(kept), len(kept) + max(scored, 0))))
                kept += range(starts[-2] + known - first, starts[-2] + known - first + max(scored, 0))
            if whole:
                wanted.draws.append(sequence)
                wanted.rows.append(len(kept))
                kept.append(len(tokens) - 1)
        self._fill_table(sequences)
        step = Step(
            torch.tensor(tokens),
            torch.tensor(positions),
            torch.tensor(starts, dtype=torch.int32),
            self._block_table(sequences),
            torch.tensor(kept, dtype=torch.int64),
            [sequence.request.asked.adapter for sequence in sequences],
        )
        return step, wanted

    def _fill_table(self, sequences: list[Sequence]) -> None:
        longest = max(len(sequence.blocks) for sequence in sequences)
        # Room to grow, so that a new block does not mean a new table.
        self._table = np.zeros((len(sequences), longest + 8), dtype=np.int32)
        for row, sequence in enumerate(sequences):
            self._table[row, : len(sequence.blocks)] = sequence.blocks
        self._num_blocks = [len(sequence.blocks) for sequence in sequences]

    def _block_table(self, sequences: list[Sequence]) -> Tensor:
        """[S, longest] int32: the table with the blocks that were added since it was filled."""
        longest = 0
        for row, sequence in enumerate(sequences):
            count = len(sequence.blocks)
            if count != self._num_blocks[row]:
                if count > self._table.shape[1]:
                    self._fill_table(sequences)
                self._table[row, :count] = sequence.blocks
                self._num_blocks[row] = count
            longest = max(longest, count)
        return torch.from_numpy(self._table[:, :longest].copy())
