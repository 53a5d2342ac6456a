"""What the completions of one model have in common."""

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from llmkit.engines.inference.sampling.compiling import StructureCompiler
from llmkit.types import SamplingParams

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class SamplingContext:
    """One per engine.

    Attributes:
        vocab_size: V, the width of the logits; models pad it beyond what the tokenizer has.
        eos_token_ids: what ends a text: masked like stop tokens where `min_new_tokens` asks, and the only tokens that
            follow a complete structure. They end no completion by themselves: the engine looks at `stop_token_ids`.
        tokenizer: None where only token ids are asked for. Ids that it does not have are never drawn.
        device: where the logits are.
        structures: compiles and keeps structures.
    """

    def __init__(
        self,
        vocab_size: int,
        eos_token_ids: Sequence[int] = (),
        tokenizer: "PreTrainedTokenizerBase | None" = None,
        device: torch.device | str = "cpu",
        compile_timeout_seconds: float = 10.0,
    ) -> None:
        self.vocab_size = vocab_size
        self.eos_token_ids = tuple(token for token in eos_token_ids if token < vocab_size)
        self.tokenizer = tokenizer
        self.device = torch.device(device)
        self.structures = StructureCompiler(tokenizer, vocab_size, compile_timeout_seconds)

    async def prepare(self, sampling: SamplingParams) -> None:
        """Compile the structure that a request asks for without blocking anyone else.

        Engines await this before they admit a request; `SamplerState` then finds it ready.

        Raises:
            RequestError: the structure makes no sense, or takes too long.
        """
        if sampling.structure is not None:
            await self.structures.prepare(sampling.structure)

    @cached_property
    def num_drawable(self) -> int:
        """Ids from here to V are padding that no token has."""
        known = self._known
        return self.vocab_size if known is None else min(self.vocab_size, max(known) + 1)

    @cached_property
    def gaps(self) -> list[int] | None:
        """N ids below `num_drawable` that no token has; None where there are none."""
        known = self._known
        if known is None:
            return None
        missing = [token for token in range(self.num_drawable) if token not in known]
        return missing or None

    @cached_property
    def _known(self) -> frozenset[int] | None:
        return frozenset(self.tokenizer.get_vocab().values()) if self.tokenizer is not None else None
