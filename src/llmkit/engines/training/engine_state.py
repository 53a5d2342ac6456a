"""`optimizer.pt` in a checkpoint: what the optimizer has gathered, read with every fault told in words."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from llmkit.engines.training.optimizers.contract import Optimizer
from llmkit.errors import CheckpointError

STATE_FILE = "optimizer.pt"


def write_state(directory: Path, state: dict[str, Any]) -> None:
    """Write `state`: tensors, numbers, lists and dictionaries."""
    torch.save(state, directory / STATE_FILE)


@contextmanager
def reading(directory: Path) -> Iterator[dict[str, Any]]:
    """What `write_state` wrote, to be used in the block.

    Raises:
        CheckpointError: it cannot be read, or the block finds that it does not fit; names the file.
    """
    path = directory / STATE_FILE
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"{path}: this optimizer state cannot be used: {error}") from error


def check_optimizer(state: dict[str, Any], name: str) -> None:
    """Refuse the state of another optimizer.

    Raises:
        CheckpointError: it is of another one.
    """
    if state["name"] != name:
        raise CheckpointError(
            f"belongs to optim.optimizer={state['name']}, and this run has optim.optimizer={name}. Resume with the old "
            "one, or start a new run in another --output-dir"
        )


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take the state of a former run, and keep the settings of this one, which may have changed since."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, chosen in zip(optimizer.param_groups, settings, strict=True):
        group.update(chosen)
