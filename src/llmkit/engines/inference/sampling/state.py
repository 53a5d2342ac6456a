"""What one completion carries from token to token."""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from torch import Tensor

from llmkit.engines.inference.sampling.checks import check
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.sampling.structure import StructureState
from llmkit.engines.inference.transfers import to_device
from llmkit.types import SamplingParams

GREEDY_BELOW = 1e-5
"""Temperatures below this are 0: logits divided by them may leave the range of float32."""


class SamplerState:
    """One completion's rules and history.

    Attributes:
        sampling: the rules.
        seed: decides the draws, together with how many were made.
        num_drawn: tokens accepted so far.
        is_greedy: the likeliest token is taken, nothing drawn.
        temperature: 1 where the row is greedy.
        truncates: top-k, top-p or min-p leave tokens out.
        wants_scores: more is to be reported than the log-probability after temperature.
        penalties: of tokens that were seen; None without any.
        structure: where the completion is in its structure; None without one.
    """

    def __init__(
        self, sampling: SamplingParams, seed: int, prompt_ids: Sequence[int], context: SamplingContext
    ) -> None:
        """Check the rules and compile the structure, which blocks unless `context.prepare` was awaited.

        Raises:
            RequestError: a setting makes no sense with this model.
        """
        check(sampling, context)
        self.sampling = sampling
        self.seed = seed
        self.context = context
        self.num_drawn = 0
        self.is_greedy = sampling.temperature < GREEDY_BELOW
        self.temperature = 1.0 if self.is_greedy else sampling.temperature
        self.truncates = not self.is_greedy and (sampling.top_k > 0 or sampling.top_p < 1 or sampling.min_p > 0)
        self.wants_scores = sampling.logprob_kind not in ("scaled", "any") or sampling.num_top_logprobs > 0
        self.penalties = _Penalties.of(sampling, prompt_ids, context.num_drawable)
        self.structure = _structure(sampling, context)
        self._always_edits = (
            sampling.allowed_token_ids is not None
            or bool(sampling.banned_token_ids)
            or bool(sampling.logit_bias)
            or context.gaps is not None
            or self.penalties is not None
            or self.structure is not None
        )

    def accept(self, token_id: int) -> None:
        """Go on after a token, drawn or given. After one that the structure has no place for, the next draw fails."""
        self.num_drawn += 1
        if self.penalties is not None:
            self.penalties.count(token_id)
        if self.structure is not None:
            self.structure.accept(token_id)

    @property
    def ended_by_structure(self) -> bool:
        """The structure is complete, and its end was drawn or there is no token that could say so."""
        return self.structure is not None and self.structure.has_ended

    @property
    def must_go_on(self) -> bool:
        """Too few tokens were drawn for an end."""
        return self.num_drawn < self.sampling.min_new_tokens

    @property
    def is_plain(self) -> bool:
        """Nothing but temperature comes between the logits and the next token, and what is reported of it."""
        return not (self.truncates or self.wants_scores or self.edits)

    @property
    def edits(self) -> bool:
        """Whether the next token's logits are changed before temperature."""
        return self._always_edits or (self.must_go_on and self.end_ids is not None)

    @cached_property
    def end_ids(self) -> Tensor | None:
        """[N] stop tokens and the text's end; None where there are none."""
        ends = sorted({*self.sampling.stop_token_ids, *self.context.eos_token_ids})
        ends = [token for token in ends if token < self.context.num_drawable]
        return to_device(np.array(ends), self.context.device) if ends else None

    @cached_property
    def banned(self) -> Tensor | None:
        """[V] True where a token can never be drawn; None where all can."""
        sampling, context = self.sampling, self.context
        if sampling.allowed_token_ids is None and not sampling.banned_token_ids and context.gaps is None:
            return None
        mask = np.zeros(context.vocab_size, dtype=np.bool_)
        if sampling.allowed_token_ids is not None:
            ends = context.eos_token_ids if sampling.structure is not None else ()
            mask[:] = True
            mask[[*sampling.allowed_token_ids, *sampling.stop_token_ids, *ends]] = False
        mask[list(sampling.banned_token_ids)] = True
        if context.gaps is not None:
            mask[context.gaps] = True
        return to_device(mask[: context.num_drawable], context.device)

    @cached_property
    def bias(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Token ids, each once, and what is added to their logits; None where there is nothing to add."""
        added: dict[int, float] = {}
        for token, bias in self.sampling.logit_bias:
            if token < self.context.num_drawable:
                added[token] = added.get(token, 0.0) + bias
        if not added:
            return None
        return np.fromiter(added.keys(), np.int64), np.fromiter(added.values(), np.float32)


class _Penalties:
    """Which tokens were seen, and how often they were drawn: N ids, growing.

    Arrays on the host, so that a step moves them once for the whole batch.
    """

    def __init__(self, sampling: SamplingParams, limit: int) -> None:
        self._limit = limit
        self.repetition = sampling.repetition_penalty
        self.presence = sampling.presence_penalty
        self.frequency = sampling.frequency_penalty
        self._slots: dict[int, int] = {}
        self._ids = np.zeros(64, dtype=np.int64)
        self._counts = np.zeros(64, dtype=np.float32)

    @classmethod
    def of(cls, sampling: SamplingParams, prompt_ids: Sequence[int], limit: int) -> "_Penalties | None":
        repeats = sampling.repetition_penalty != 1
        if not repeats and sampling.presence_penalty == 0 and sampling.frequency_penalty == 0:
            return None
        penalties = cls(sampling, limit)
        for token in dict.fromkeys(prompt_ids) if repeats else ():
            if token < limit:  # media have placeholders beyond the vocabulary
                penalties._slot(token)
        return penalties

    def count(self, token_id: int) -> None:
        if token_id < self._limit:
            slot = self._slot(token_id)  # may replace the arrays
            self._counts[slot] += 1

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] token ids, each once, and [N] how often each was drawn; 0 is one of the prompt's."""
        return self._ids[: len(self._slots)], self._counts[: len(self._slots)]

    def _slot(self, token_id: int) -> int:
        slot = self._slots.setdefault(token_id, len(self._slots))
        if slot == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[slot] = token_id
        return slot


def _structure(sampling: SamplingParams, context: SamplingContext) -> StructureState | None:
    if sampling.structure is None:
        return None
    compiled = context.structures.get(sampling.structure)
    ends = {*context.eos_token_ids, *(token for token in sampling.stop_token_ids if compiled.is_special(token))}
    return StructureState(compiled, sorted(ends - {*sampling.banned_token_ids}), sampling.min_new_tokens)
