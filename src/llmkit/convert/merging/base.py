"""The base model's files on this machine, and those of them that go with the merged weights."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from llmkit.adapters.adapter_files import CONFIG
from llmkit.config.schema import ModelConfig
from llmkit.convert.merging.adapters import RUN_RECORD
from llmkit.convert.record import MANIFEST
from llmkit.errors import ConfigError, ModelError
from llmkit.models.directory import check_model, read_object
from llmkit.models.hub import reaching_hub
from llmkit.models.loading import BUILTIN, checkpoint_path

BESIDE = ("*.json", "*.jinja", "*.txt", "*.model", "*.py", "LICENSE*")
OF_WEIGHTS = (CONFIG, RUN_RECORD, MANIFEST)
TOKENIZER = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "added_tokens.json", "*.jinja", "spiece*")


def base_directory(config: ModelConfig) -> Path:
    """The directory of a model, which is downloaded where it is a Hugging Face name.

    Raises:
        ModelError: there is no such model, or it lacks a part.
        ConfigError: its weights are quantised.
    """
    path = checkpoint_path(config)
    directory = Path(path)
    if not config.path.startswith(BUILTIN) and not directory.is_dir():
        directory = _downloaded(path, config.revision or "main")
    check_model(directory)
    quantised = read_object(directory / "config.json").get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise ConfigError(
            f"{config.path}: its weights are quantised ({method}), and merging would round the update; name the model "
            "with whole weights with --base"
        )
    return directory


def copy_beside(base: Path, adapter: Path | None, out: Path) -> None:
    """Copy what belongs to a model besides its weights.

    Args:
        base: directory of the base model.
        adapter: with a tokenizer of its own, which takes the place of the base model's; None without.
        out: the directory to copy to; what is there already stays.
    """
    if adapter is not None:
        for file in matching(adapter, TOKENIZER):
            shutil.copyfile(file, out / file.name)
    for file in matching(base, BESIDE):
        is_tokenizer = any(file.match(pattern) for pattern in TOKENIZER)
        if not (out / file.name).exists() and not (adapter is not None and is_tokenizer):
            shutil.copyfile(file, out / file.name)


def write_config(base: Path, out: Path, *, dtype: str | None = None, vocab_size: int | None = None) -> None:
    """Write the base model's configuration with another type of weights, or another number of tokens; None keeps."""
    values: dict[str, Any] = read_object(base / "config.json")
    for section in (values, values.get("text_config")):
        if not isinstance(section, dict):
            continue
        if dtype is not None and ("dtype" in section or "torch_dtype" in section or section is values):
            section.pop("torch_dtype", None)
            section["dtype"] = dtype
        if vocab_size is not None and "vocab_size" in section:
            section["vocab_size"] = vocab_size
    (out / "config.json").write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def base_dtype(base: Path) -> str | None:
    """The type that the configuration says its weights have; None where it does not."""
    values = read_object(base / "config.json")
    text = values.get("text_config") if isinstance(values.get("text_config"), dict) else {}
    return next((one[key] for one in (values, text or {}) for key in ("dtype", "torch_dtype") if one.get(key)), None)


def matching(directory: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for file in sorted(directory.iterdir()):
        wanted = any(file.match(pattern) for pattern in patterns)
        if wanted and file.is_file() and file.name not in OF_WEIGHTS and not file.name.endswith(".index.json"):
            yield file


def _downloaded(name: str, revision: str) -> Path:
    try:
        with reaching_hub(name, revision):
            return Path(
                huggingface_hub.snapshot_download(name, revision=revision, ignore_patterns=["*.gguf", "*.onnx"])
            )
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ModelError(
            f"{name}: no local directory of that name, and the Hugging Face hub does not give the model (no network, a "
            "typo, or no access). To use a local copy: --base DIR"
        ) from error
