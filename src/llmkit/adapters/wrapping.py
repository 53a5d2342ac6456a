"""Put an adapter of PEFT on a model, load its weights, merge it."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import peft
import torch
from torch import Tensor, nn

from llmkit.errors import CheckpointError, ConfigError

REFUSALS = (ValueError, TypeError, KeyError, NotImplementedError, AssertionError, ImportError)
"""What PEFT raises for a model or an option that an adapter cannot work with."""

UNINTERESTING = (
    "`is_gradient_checkpointing` is deprecated",  # it asks transformers by an old name
    "Full backward hook is firing",  # LoRA-GA counts backward passes, and the first module's inputs need no gradient
    "Detected that the base layer has no bias term",  # BEFT: a fact says so
    "lora with eva initialization used with low_cpu_mem_usage=False",
    "Converting a PEFT adapter to LoRA that is already a LoRA adapter",  # of another form, or to another rank
    "Specified to not (save|load)",  # as `save_projection=false` asks
    "Unsupported layer type",  # norms of transformers, which have classes of their own
    "Failed to load the CUDA extension",  # BOFT goes on without it
    "Setting boft_n_butterfly_factor to 1",  # our BOFT refuses more than 1 where this would happen
)
"""Warnings of PEFT that change nothing for a user of llmkit."""


def wrap(model: nn.Module, config: Any, name: str) -> Any:
    """The model with a new adapter of this configuration.

    Raises:
        ConfigError: PEFT cannot put it on this model.
    """
    if not torch.sparse.check_sparse_tensor_invariants.is_enabled():
        # Some adapters work with sparse tensors, and PyTorch warns until somebody has said that checks are off.
        torch.sparse.check_sparse_tensor_invariants.disable()
    # PEFT takes the name from the model, and warns when it was another.
    config.base_model_name_or_path = None
    try:
        with quiet():
            return peft.get_peft_model(model, config)  # type: ignore[arg-type] - a transformers model
    except REFUSALS as error:
        raise ConfigError(f"adapter.name={name} does not fit this model: {error}") from error


def load_state(model: Any, state: Mapping[str, Tensor], directory: Path) -> None:
    """Give a wrapped model the weights of a checkpoint.

    Raises:
        CheckpointError: they are of another adapter.
    """
    with quiet():
        result = peft.set_peft_model_state_dict(model, dict(state))
    # Prompts are set apart from the other weights, and reported as unexpected all the same.
    unexpected = [key for key in getattr(result, "unexpected_keys", []) if key != "prompt_embeddings"]
    if unexpected:
        raise CheckpointError(
            f"{directory}: {len(unexpected)} weights have no place in this adapter ({unexpected[0]}); the checkpoint "
            "is of another adapter or model"
        )


def merge(model: Any) -> nn.Module:
    """The base model with the adapter's update in its weights.

    Raises:
        ConfigError: PEFT finds numbers that are not finite, or a layer that cannot take the update.
    """
    try:
        with quiet():
            return model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(f"this adapter cannot be merged: {error}") from error


def is_on_meta(model: nn.Module) -> bool:
    """Whether the model has shapes and names only."""
    return any(parameter.is_meta for parameter in model.parameters())


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what PEFT says about itself and users can do nothing about."""
    with warnings.catch_warnings():
        for message in UNINTERESTING:
            warnings.filterwarnings("ignore", message=message)
        yield
