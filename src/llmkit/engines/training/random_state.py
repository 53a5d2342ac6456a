"""The random state of everything that draws numbers in training: PyTorch on every device."""

from typing import Any

import torch


def seed_everything(seed: int) -> None:
    """Start PyTorch's generators from `seed`."""
    torch.manual_seed(seed)


def get_random_state() -> dict[str, Any]:
    """State of PyTorch's generators, as tensors."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"cpu": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: dict[str, Any]) -> None:
    """Go on from a state. Generators of GPUs that are not there any more are left out."""
    torch.set_rng_state(state["cpu"])
    for index, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, index)
