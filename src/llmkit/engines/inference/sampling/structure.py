"""Which tokens a structure allows next."""

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.sampling.compiling import CompiledStructure
from llmkit.engines.inference.transfers import to_device

if TYPE_CHECKING:
    from llguidance import LLExecutor


class StructureState:
    """Where one completion is in its structure.

    Attributes:
        has_ended: the structure is complete, and its end was drawn or no token could say so.
    """

    def __init__(self, compiled: CompiledStructure, end_ids: Sequence[int], min_new_tokens: int) -> None:
        """Args:
        compiled: the structure.
        end_ids: tokens that end the completion where the structure is complete.
        min_new_tokens: a structure that could go on may end only after so many tokens; one that could not ends.
        """
        self.matcher = compiled.matcher()
        self.end_ids = list(end_ids)
        self.misread = compiled.misread
        self.num_tokens = compiled.num_tokens
        self.has_ended = False
        self._min_new_tokens = min_new_tokens
        self._num_drawn = 0

    @property
    def is_over(self) -> bool:
        """The structure is complete and nothing can follow."""
        return self.matcher.is_stopped() and not self.matcher.is_error()

    @property
    def may_end(self) -> bool:
        """An end token can be drawn."""
        return self.is_over or (self.matcher.is_accepting() and self._num_drawn >= self._min_new_tokens)

    @property
    def error(self) -> str:
        """Why the matcher gave up; empty when it did not."""
        return self.matcher.get_error()

    def accept(self, token_id: int) -> None:
        """Go on after a token; one that does not fit leaves an `error`."""
        self._num_drawn += 1
        if token_id in self.end_ids and self.matcher.is_accepting():
            self.has_ended = True
        elif self.matcher.consume_token(token_id):
            self.has_ended = self.is_over and not self.end_ids


def structure_masks(states: Sequence[StructureState], size: int, device: torch.device) -> Tensor:
    """[R, size] True where a token may come next; all False in the row of a matcher that gave up."""
    words = -(-states[0].num_tokens // 32)
    masks = torch.zeros(len(states), words, dtype=torch.int32)
    going_on = [(state.matcher, row) for row, state in enumerate(states) if not state.matcher.is_stopped()]
    if going_on:
        _executor().unsafe_compute_mask_ptr(going_on, masks.data_ptr(), words * 4, len(states))
    words_of = masks.numpy().view(np.uint32)
    for row, state in enumerate(states):
        if state.error:
            words_of[row] = 0
            continue
        _set(words_of[row], state.misread, False)
        _set(words_of[row], state.end_ids, state.may_end)
    octets = to_device(masks.view(torch.uint8), device)
    bits = (octets[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=device)) & 1
    return bits.view(torch.bool).view(len(states), -1)[:, :size]


def _set(words: np.ndarray, token_ids: Sequence[int], allowed: bool) -> None:
    """Change the bits of some tokens in [W] uint32."""
    ids = np.array([token for token in token_ids if token < 32 * len(words)], dtype=np.uint32)
    bits = np.uint32(1) << ids % 32
    if allowed:
        np.bitwise_or.at(words, ids // 32, bits)
    else:
        np.bitwise_and.at(words, ids // 32, ~bits)


@cache
def _executor() -> "LLExecutor":
    from llguidance import LLExecutor

    return LLExecutor()
