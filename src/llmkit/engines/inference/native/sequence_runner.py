"""For architectures that cannot run packed: each sequence by itself, with the cache that transformers gives it."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.native.generating import generating
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.models.packed import goes_one_by_one
from llmkit.models.policy import Policy


class SequenceRunner:
    """Blocks only count tokens here: what a sequence knows is in an object of its own, found by its first block.

    A prompt goes through whole, and nothing is shared: recurrent state cannot be taken up in the middle.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._caches: dict[int, Any] = {}
        # What an adapter puts before each sequence would be put before every part of it.
        self._recomputes = goes_one_by_one(policy.model)
        self._token_ids: dict[int, Tensor] = {}

    @property
    def bytes_per_block(self) -> int:
        """What the cache of one sequence grows by."""
        config = self._policy.model.config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or getattr(config, "num_attention_heads", None) or 1
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return 2 * config.num_hidden_layers * heads * width * BLOCK_SIZE * self._policy.compute_dtype.itemsize

    def allocate(self, num_blocks: int) -> None:
        """Caches are made as sequences come."""

    @torch.inference_mode()
    def forward(self, step: Step) -> Tensor:
        """[N, V] logits after the chosen positions."""
        starts = step.query_starts.tolist()
        firsts = step.block_tables[:, 0].tolist()
        wanted = step.logit_positions.tolist()
        pieces = []
        with generating(self._policy):
            for row, first in enumerate(firsts):
                span = slice(starts[row], starts[row + 1])
                kept = [place - span.start for place in wanted if span.start <= place < span.stop]
                token_ids = step.token_ids[span].to(self._policy.device)
                logits = self._run(first, token_ids, begins=int(step.positions[span.start]) == 0)
                pieces.append(logits[len(logits) - (span.stop - span.start) :][kept])
        return torch.cat(pieces)

    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Never asked for: no blocks are shared."""
        raise NotImplementedError

    def forget(self, first_block: int) -> None:
        """The sequence that began with this block is gone."""
        self._caches.pop(first_block, None)
        self._token_ids.pop(first_block, None)

    def weights_changed(self) -> None:
        """Nothing is made of the weights."""

    def close(self) -> None:
        """Free everything."""
        self._caches.clear()
        self._token_ids.clear()

    def _run(self, first: int, token_ids: Tensor, *, begins: bool) -> Tensor:
        """[n, V] logits after a sequence's next tokens, or after all of them."""
        if self._recomputes:
            before = token_ids.new_empty(0) if begins else self._token_ids[first]
            self._token_ids[first] = torch.cat([before, token_ids])
            return self._policy.model(input_ids=self._token_ids[first][None], use_cache=False).logits[0]
        if begins:
            self._caches.pop(first, None)
        # Architectures name their caches differently; what a forward pass returns is handed to the next one.
        output = self._policy.model(input_ids=token_ids[None], use_cache=True, **self._caches.get(first, {}))
        for name in ("past_key_values", "cache_params", "state"):
            cache = getattr(output, name, None)
            if cache is not None:
                self._caches[first] = {name: cache}
                break
        else:
            self._recomputes = True
            return self._run(first, token_ids, begins=begins)
        return output.logits[0]
