"""Adapters on disk in PEFT's layout, with as few keys as describe them, so that any version of PEFT reads them."""

import json
from collections.abc import Collection, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import peft
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from llmkit.adapters.wrapping import quiet
from llmkit.errors import CheckpointError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
ALWAYS = ("peft_type", "task_type", "base_model_name_or_path", "revision")
"""What every reader looks for; the rest is written where it differs from PEFT's default or was chosen."""

NOTHING: tuple[Any, ...] = (None, False, "none", [], {})
"""Values that are not worth a key though they were chosen: a reader that does not know the key does the same."""


def adapter_state(model: Any) -> dict[str, Tensor]:
    """The adapter's weights by the names that they have in checkpoints."""
    # The rows that an adapter trains are its own; whole embeddings are the base model's and stay out.
    with quiet():
        return peft.get_peft_model_state_dict(model, save_embedding_layers=False)


def write_adapter(
    directory: Path, config: Any, state: Mapping[str, Tensor], *, keep: Collection[str] = (), **changes: Any
) -> None:
    """Write an adapter.

    Args:
        config: PEFT's.
        state: its weights.
        keep: settings to write though they have PEFT's default, which may change between its versions.
        changes: values to write in place of the configuration's; None leaves a setting out.
    """
    changed = {**minimal(config, keep), **changes}
    values = {key: value for key, value in changed.items() if value is not None or key in ALWAYS}
    text = json.dumps(values, indent=2, sort_keys=True)
    (directory / CONFIG).write_text(text + "\n", encoding="utf-8")
    save_file(_unshared(state), directory / WEIGHTS, metadata={"format": "pt"})


def minimal(config: Any, keep: Collection[str] = ()) -> dict[str, Any]:
    """The settings of a PEFT configuration that say something, as JSON has them."""
    found: dict[str, Any] = {"inference_mode": True}
    for field in fields(config):
        value = _plain(getattr(config, field.name))
        said = value != _plain(_default(field)) or (field.name in keep and value not in NOTHING)
        if field.name in ALWAYS or (said and field.name not in ("inference_mode", "peft_version", "auto_mapping")):
            found[field.name] = value
    return found


def read_config(directory: Path) -> Any:
    """PEFT's configuration of the adapter in a directory, for training on.

    Raises:
        CheckpointError: there is none, or it cannot be read.
    """
    path = directory / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        values["inference_mode"] = False
        with quiet():
            return peft.PeftConfig.from_peft_type(**values)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not an adapter's configuration: {error}") from error


def read_weights(directory: Path) -> dict[str, Tensor]:
    """The weights of the adapter in a directory.

    Raises:
        CheckpointError: they are not there or damaged.
    """
    path = directory / WEIGHTS
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error


def _unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that share no memory: the file format wants each of its own."""
    seen: set[int] = set()
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        address = plain.untyped_storage().data_ptr()
        found[name] = plain.clone() if address in seen or plain.untyped_storage().nbytes() > plain.nbytes else plain
        seen.add(address)
    return found


def _default(field: Any) -> Any:
    if field.default is not MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not MISSING else None


def _plain(value: Any) -> Any:
    """A value as JSON has it: sets sorted, enumerations by value, nested configurations without their defaults."""
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, set | frozenset):
        return sorted(value)
    if is_dataclass(value) and not isinstance(value, type):
        named = ((field, _plain(getattr(value, field.name))) for field in fields(value))
        return {field.name: plain for field, plain in named if plain != _plain(_default(field))}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
