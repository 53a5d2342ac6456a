"""Compare the logits of a merged model with those of base model and adapter."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from llmkit.convert.merging.combining import Combination
from llmkit.convert.merging.streaming import Updates, total_update
from llmkit.errors import ConvertError

NUM_ROWS, NUM_TOKENS = 2, 32
LIMITS = {torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
"""Largest difference that rounding explains, as a share of the largest logit, by the type of the merged weights."""


@dataclass(frozen=True)
class Difference:
    """Between the logits of two models.

    Attributes:
        largest: in absolute numbers.
        largest_logit: of the first one, to hold it against.
        same_tokens: share of positions at which both find the same token the most likely.
        num_tokens: positions that were compared.
        limit: what is taken for rounding.
    """

    largest: float
    largest_logit: float
    same_tokens: float
    num_tokens: int
    limit: float

    def document(self) -> dict[str, float]:
        """As JSON has it."""
        return asdict(self)


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """[R, T, V] float32 logits on random tokens, the same for every model of one vocabulary."""
    generator = torch.Generator().manual_seed(0)
    size = model.config.get_text_config().vocab_size
    tokens = torch.randint(0, size, (NUM_ROWS, NUM_TOKENS), generator=generator)
    return model(input_ids=tokens, use_cache=False).logits.float()


def compare(expected: Tensor, found: Tensor, dtype: torch.dtype) -> Difference:
    """How far logits are from those that they should be.

    Args:
        expected: of base model and adapter.
        found: of the merged model.
        dtype: of the merged weights.

    Raises:
        ConvertError: they differ by more than rounding.
    """
    largest = (expected - found).abs().max().item()
    scale = max(1.0, expected.abs().max().item())
    same = (expected.argmax(-1) == found.argmax(-1)).float().mean().item()
    limit = LIMITS[dtype] * scale
    if not largest <= limit:
        raise ConvertError(
            f"the merged model's logits differ by {largest:.3g} from those of base model and adapter, and rounding "
            f"explains {limit:.3g} at most; nothing was written"
        )
    return Difference(largest, scale, same, expected.shape[0] * expected.shape[1], limit)


@contextmanager
def with_updates(model: Any, updates: Updates, how: Combination) -> Iterator[None]:
    """Add the updates to the outputs of their layers while the block runs; the weights stay as they are."""
    hooks = []
    for name, several in updates.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        update = total_update(several, how, name)
        matrix = update if isinstance(layer, Conv1D) else update.T
        hooks.append(layer.register_forward_hook(_adding(matrix)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _adding(matrix: Tensor) -> Any:
    return lambda module, inputs, output: output + inputs[0] @ matrix
