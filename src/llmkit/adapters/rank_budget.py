"""The state of AdaLoRA's budget beside its weights: running importance of every weight, and which ranks are left."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from llmkit.errors import CheckpointError

STATE = "adalora_budget.safetensors"
MEANS = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator keeps of each weight: last importance, its running mean, and the mean of its variation."""


def orthogonality(model: Any) -> Tensor:
    """Mean over matrices of the Frobenius distance of P P' and Q' Q from the identity.

    Source: arXiv:2303.10512, equation 4, averaged as in its authors' code.
    """
    distances = []
    for name, parameter in model.named_parameters():
        if ".lora_A." in name or ".lora_B." in name:
            gram = parameter @ parameter.T if ".lora_A." in name else parameter.T @ parameter
            distances.append(torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device)))
    return torch.stack(distances).mean()


@contextmanager
def whole_ranks(model: Any) -> Iterator[Any]:
    """The model's configuration without the pattern of ranks, by which PEFT would cut saved matrices.

    Cut matrices would not fit the optimizer's state; uncut ones, with zeros as singular values, give the same model.
    """
    config = model.peft_config["default"]
    pattern, config.rank_pattern = config.rank_pattern, None
    try:
        yield config
    finally:
        config.rank_pattern = pattern


def write_budget(model: Any, directory: Path) -> None:
    """Write what the next change of the ranks depends on."""
    allocator = model.base_model.rankallocator
    tensors = {
        f"{mean}/{name}": value.cpu().contiguous() for mean in MEANS for name, value in getattr(allocator, mean).items()
    }
    pattern = model.peft_config["default"].rank_pattern
    save_file(tensors, directory / STATE, metadata={"rank_pattern": json.dumps(pattern)})


def read_budget(model: Any, directory: Path) -> None:
    """Go on from what `write_budget` wrote.

    Raises:
        CheckpointError: it is not there or damaged.
    """
    path = directory / STATE
    allocator = model.base_model.rankallocator
    device = next(model.parameters()).device
    try:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - no mapping, though it has keys
                mean, _, name = key.partition("/")
                getattr(allocator, mean)[name] = file.get_tensor(key).to(device)
            pattern = json.loads((file.metadata() or {})["rank_pattern"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: the ranks of this adapter cannot be restored: {error}") from error
    model.peft_config["default"].rank_pattern = pattern
