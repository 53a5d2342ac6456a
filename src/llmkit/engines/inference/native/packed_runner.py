"""Any causal language model of transformers whose attention can be replaced, over a paged cache, without padding."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from llmkit.engines.inference.native.adapter_set import AdapterSet
from llmkit.engines.inference.native.generating import generating
from llmkit.engines.inference.native.paged_attention import LayerCache, LayerShape, PagedLayout
from llmkit.engines.inference.native.rounded_weights import RoundedWeights
from llmkit.engines.inference.native.runner import BLOCK_SIZE, Step
from llmkit.engines.inference.transfers import to_device
from llmkit.errors import EngineError
from llmkit.models.packed import ATTENTION, AttentionPlan
from llmkit.models.policy import Policy


class ModelInputs(NamedTuple):
    """What the model itself is given of a step, on its device.

    Attributes:
        token_ids: [T] int64.
        positions: [T] int64.
        logit_positions: [N] int64 indices into the T tokens.
    """

    token_ids: Tensor
    positions: Tensor
    logit_positions: Tensor

    @classmethod
    def of(cls, step: Step, device: torch.device) -> "ModelInputs":
        """Send a step's numbers to a device."""
        return cls(*(numbers.to(device) for numbers in (step.token_ids, step.positions, step.logit_positions)))


class PackedRunner:
    """The policy's own modules run; only what their attention looks at is ours.

    Attributes:
        adapters: low-rank adapters that steps may name.
    """

    def __init__(self, policy: Policy, shapes: Sequence[LayerShape]) -> None:
        """Args:
        shapes: of the attention layers, in the order in which they run; `probe` finds them.
        """
        self._policy = policy
        self._shapes = list(shapes)
        self._caches: list[LayerCache] = []
        self.adapters = AdapterSet(policy.model)
        self._rounded = RoundedWeights(policy) if policy.compute_dtype != torch.float32 else None

    @property
    def bytes_per_block(self) -> int:
        """Of keys and values of all layers, for one block."""
        per_token = sum(
            shape.kv_heads
            * (shape.key_width * shape.key_dtype.itemsize + shape.value_width * shape.value_dtype.itemsize)
            for shape in self._shapes
        )
        return per_token * BLOCK_SIZE

    def allocate(self, num_blocks: int) -> None:
        """Make the cache.

        Raises:
            EngineError: there is no memory for it.
        """
        try:
            self._caches = [LayerCache.empty(shape, num_blocks, self._policy.device) for shape in self._shapes]
        except (RuntimeError, MemoryError) as error:
            raise EngineError(f"no memory for a cache of {num_blocks} blocks: {error}") from error

    @torch.inference_mode()
    def forward(self, step: Step) -> Tensor:
        """[N, V] logits after the chosen positions."""
        weights = self._rounded.applied() if self._rounded is not None else nullcontext()
        with generating(self._policy), self.adapters.applied(step), weights:
            return self._run(step)

    def _run(self, step: Step) -> Tensor:
        """`forward` with everything set for it."""
        layout = PagedLayout(step, self._caches)
        return packed_forward(self._policy.model, ModelInputs.of(step, self._policy.device), layout)

    @torch.inference_mode()
    def copy_blocks(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copy whole blocks."""
        before, after = to_device(np.array([sources, targets]), self._policy.device)
        for cache in self._caches:
            for states in (cache.keys, cache.values):
                states.index_copy_(0, after, states.index_select(0, before))

    def weights_changed(self) -> None:
        """Under autocast, round the matrices anew."""
        if self._rounded is not None:
            self._rounded.weights_changed()

    def free_cache(self) -> None:
        """Undo `allocate`. What is made of the weights stays, so that what is free then is free for a cache."""
        self._caches = []

    def close(self) -> None:
        """Free everything; take the adapters out of the model."""
        self.free_cache()
        self.adapters.close()
        if self._rounded is not None:
            self._rounded.close()


def packed_forward(model: Any, inputs: ModelInputs, plan: AttentionPlan) -> Tensor:
    """[N, V] logits of packed tokens whose attention `plan` computes."""
    with _our_attention(model):
        output = model(
            input_ids=inputs.token_ids[None],
            position_ids=inputs.positions[None],
            # A 4-D mask is passed through by transformers as it is; our attention never reads it.
            attention_mask=torch.empty(1, 1, 1, 1, device=inputs.token_ids.device),
            use_cache=False,
            layout=plan,
            logits_to_keep=inputs.logit_positions,
        )
    return output.logits[0]


@contextmanager
def _our_attention(model: Any) -> Iterator[None]:
    """Models that were loaded with another attention get ours for the length of a step."""
    before = model.config._attn_implementation
    if before == ATTENTION:
        yield
        return
    model.config._attn_implementation = ATTENTION
    try:
        yield
    finally:
        model.config._attn_implementation = before
