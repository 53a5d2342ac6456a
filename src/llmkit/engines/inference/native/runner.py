"""What runs a model over a paged key-value cache: many sequences in one step, prompts and single tokens mixed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from llmkit.engines.inference.native.adapter_files import LowRankAdapter

BLOCK_SIZE = 16
"""Tokens of a cache block."""


@dataclass(frozen=True, slots=True)
class Step:
    """The tokens that go through the model together: T of S sequences, laid end to end.

    The tensors are in main memory, where they were made: a runner plans with them and sends them where it computes.

    The keys and values of the token at position p of sequence s go to offset `p % BLOCK_SIZE` of block
    `block_tables[s, p // BLOCK_SIZE]`; blocks that come before are full and may belong to several sequences.

    Attributes:
        token_ids: [T] int64.
        positions: [T] int64, in their own sequence.
        query_starts: [S + 1] int32; sequence s owns the tokens `[query_starts[s], query_starts[s + 1])`, at least one,
            at consecutive positions.
        block_tables: [S, longest] int32, padded with 0.
        logit_positions: [N] int64 indices into the T tokens.
        adapters: S names; None is the model itself.
    """

    token_ids: Tensor
    positions: Tensor
    query_starts: Tensor
    block_tables: Tensor
    logit_positions: Tensor
    adapters: Sequence[str | None]


class Adapters(Protocol):
    """Low-rank adapters that steps may name."""

    def objection(self, name: str, adapter: "LowRankAdapter") -> str | None:
        """Why an adapter that fits the model cannot be held; None when it can.

        Raises:
            RequestError: it does not fit the model.
        """
        ...

    def load(self, name: str, adapter: "LowRankAdapter") -> None:
        """Hold an adapter that there is no objection to."""
        ...

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        ...


class Runner(Protocol):
    """A model and its cache. Weights belong to the policy and may change between steps.

    One that can draw tokens faster than PyTorch has a `draw` too, a `PlainSampler`; one that takes adapters has them in
    `adapters`.
    """

    @property
    def bytes_per_block(self) -> int:
        """Of keys and values of all layers, for one block."""
        ...

    def allocate(self, num_blocks: int) -> None:
        """Make the cache; called once, before the first step.

        Raises:
            EngineError: there is no memory for it.
        """
        ...

    def forward(self, step: Step) -> Tensor:
        """Write the tokens' keys and values; returns [N, V] logits after the chosen tokens, in the compute type."""
        ...

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks, for sequences that part ways within one."""
        ...

    def weights_changed(self) -> None:
        """Called after the policy's parameters changed; what was made of them is made anew."""
        ...

    def close(self) -> None:
        """Free everything."""
        ...
