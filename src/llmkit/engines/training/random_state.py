"""The random state of everything that draws numbers in training: PyTorch on every device."""

from typing import Any

import torch

from llmkit.distributed.world import world


def seed_everything(seed: int) -> None:
    """Start PyTorch's generators from `seed`."""
    torch.manual_seed(seed)


def get_random_state() -> dict[str, Any]:
    """State of PyTorch's generators, as tensors."""
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state(index) for index in _devices()]}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from a state. Generators of GPUs that are not there any more are left out."""
    torch.set_rng_state(state["cpu"])
    for index, cuda in zip(_devices(), state["cuda"], strict=False):
        torch.cuda.set_rng_state(cuda, index)


def _devices() -> list[int]:
    """GPUs that this process computes on: all that there are, or the one of its own among several processes."""
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.current_device()] if world().size > 1 else list(range(torch.cuda.device_count()))
