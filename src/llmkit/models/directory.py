"""Look through a model directory before anything is loaded: what is missing or damaged is told with its file."""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from llmkit.errors import ModelError

WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
COPY_AGAIN = "copy or download it again"


def check_model(path: Path, *, needs_weights: bool = True) -> None:
    """Refuse a directory that does not hold a whole model; weights are looked at by their headers alone.

    Args:
        needs_weights: whether a directory without any is refused.

    Raises:
        ModelError: names the file and what is wrong with it.
    """
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise ModelError(f"{path}: this is an adapter, not a model; give its base model as model.path")
        raise ModelError(f"{path}: no config.json, so this is not a model directory in the Hugging Face layout")
    read_object(path / "config.json")
    if needs_weights and not has_weights(path):
        raise ModelError(f"{path}: no weights (model.safetensors or its shards); the download may be incomplete")
    for index in (*path.glob("*.safetensors.index.json"), *path.glob("pytorch_model.bin.index.json")):
        _check_index(index)
    for weights in sorted(path.glob("*.safetensors")):
        _check_header(weights)


def has_weights(path: Path) -> bool:
    """Whether there is any file of weights."""
    return any(next(path.glob(pattern), None) for pattern in WEIGHT_FILES)


def check_tokenizer(path: Path) -> None:
    """Refuse a directory without a tokenizer.

    Raises:
        ModelError: there is none, or a file of it is not what it should be.
    """
    there = [path / name for name in TOKENIZER_FILES if (path / name).is_file()]
    if not there:
        raise ModelError(
            f"{path}: no tokenizer (tokenizer.json); copy it from the model's source, or name its directory with "
            "--set model.tokenizer=DIR"
        )
    for file in there:
        if file.suffix == ".json":
            read_object(file)


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ModelError: it cannot be read, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise ModelError(f"{path}: not valid JSON ({error}); {COPY_AGAIN}") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path}: not a JSON object; {COPY_AGAIN}")
    return values


def _check_index(path: Path) -> None:
    """Every shard that the index names must be there."""
    shards = read_object(path).get("weight_map")
    if not isinstance(shards, dict):
        raise ModelError(f"{path}: no 'weight_map', so its shards are not known; {COPY_AGAIN}")
    missing = sorted({str(name) for name in shards.values() if not (path.parent / str(name)).is_file()})
    if missing:
        raise ModelError(
            f"{path.parent}: {len(missing)} of the weight files that {path.name} names are missing "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); the download may be incomplete"
        )


def _check_header(path: Path) -> None:
    """A file that was cut off shows in its header, which says how long it should be."""
    try:
        with safe_open(path, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: cannot be read, or was cut off ({error}); {COPY_AGAIN}") from None
