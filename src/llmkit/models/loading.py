"""Find a checkpoint and load its model and tokenizer; every fault of a directory is told before weights are read."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llmkit import plugins
from llmkit.config.schema import ModelConfig
from llmkit.errors import ModelError
from llmkit.models.packed import ATTENTION

# Its bars for files that take milliseconds would break ours.
transformers_logging.disable_progress_bar()

BUILTIN = "builtin:"
WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


def checkpoint_path(config: ModelConfig) -> str:
    """Directory, or Hugging Face name, of the model; `builtin:` models are made when they are first asked for.

    Raises:
        ModelError: a local directory that is not there or lacks a part.
        PluginError: no built-in model has that name.
    """
    if config.path.startswith(BUILTIN):
        plugin = plugins.load("models", config.path.removeprefix(BUILTIN))
        return str(plugin.build(plugin.Config()))
    path = Path(config.path).expanduser()
    if path.is_dir():
        _check_directory(path)
        return str(path)
    if path.exists():
        raise ModelError(f"model.path={config.path}: this is a file; give the directory that holds config.json")
    if path.is_absolute() or config.path.startswith((".", "~")) or config.path.count("/") > 1:
        raise ModelError(f"model.path={config.path}: no such directory")
    return config.path


def _check_directory(path: Path) -> None:
    if not (path / "config.json").is_file():
        if (path / "adapter_config.json").is_file():
            raise ModelError(f"{path}: this is an adapter, not a model; give its base model as model.path")
        raise ModelError(f"{path}: no config.json, so this is not a model directory in the Hugging Face layout")
    try:
        json.loads((path / "config.json").read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{path / 'config.json'}: not valid JSON ({error})") from None
    if not any(next(path.glob(pattern), None) for pattern in WEIGHT_FILES):
        raise ModelError(f"{path}: no weights (model.safetensors or its shards); the download may be incomplete")


def load_model(config: ModelConfig) -> nn.Module:
    """The causal language model, in evaluation mode, on the CPU.

    Raises:
        ModelError: the checkpoint cannot be found, read, or is not a causal language model.
    """
    path = checkpoint_path(config)
    options = _hub_options(config)
    dtype = config.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, output_loading_info=True, **_attention(path, options), **options
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise _load_error(config, "model", error) from error
    model, report = loaded
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"{config.path}: the checkpoint lacks {len(missing)} weights that its config.json asks for "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}); it is incomplete or of another model"
        )
    return model.eval()


def load_weights(model: nn.Module, directory: Path) -> None:
    """Give `model` the weights of a checkpoint of its own architecture, bit for bit.

    Raises:
        ModelError: the checkpoint cannot be read or has other weights.
    """
    dtype: Any = next(model.parameters()).dtype
    try:
        saved = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        model.load_state_dict(saved.state_dict())
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"{directory}: these weights do not fit the model: {str(error).strip()}") from error


def context_length(config: ModelConfig) -> int:
    """Most tokens that the model can take; a model that names no limit has a very large one."""
    path = checkpoint_path(config)
    try:
        architecture = AutoConfig.from_pretrained(path, **_hub_options(config))
    except (OSError, ValueError) as error:
        raise _load_error(config, "model", error) from error
    return getattr(architecture.get_text_config(), "max_position_embeddings", None) or 1 << 30


def load_on_meta(config: ModelConfig) -> nn.Module:
    """The model without its weights: shapes and names only, no memory."""
    path = checkpoint_path(config)
    try:
        architecture = AutoConfig.from_pretrained(path, **_hub_options(config))
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(architecture, trust_remote_code=config.trust_remote_code)
    except (OSError, ValueError) as error:
        raise _load_error(config, "model", error) from error


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    path = config.tokenizer or checkpoint_path(config)
    if Path(path).is_dir() and not any(
        (Path(path) / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model")
    ):
        raise ModelError(
            f"{path}: no tokenizer (tokenizer.json); copy it from the model's source, or name its directory with "
            "--set model.tokenizer=DIR"
        )
    try:
        return AutoTokenizer.from_pretrained(path, **_hub_options(config))
    except (OSError, ValueError, KeyError) as error:
        raise _load_error(config, "tokenizer", error) from error


def _hub_options(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision or "main", "trust_remote_code": config.trust_remote_code}


def _attention(path: str, options: dict[str, Any]) -> dict[str, str]:
    """Our attention where the architecture has a pluggable one of the ordinary kind; its own elsewhere."""
    architecture = AutoConfig.from_pretrained(path, **options)
    if getattr(architecture.get_text_config(), "attn_logit_softcapping", None) or architecture.model_type == "gpt_oss":
        # Soft-capped scores and sinks exist in the eager form alone on every device.
        return {"attn_implementation": "eager"}
    model_class = AutoModelForCausalLM._model_mapping.get(type(architecture), None)
    if getattr(model_class, "_supports_attention_backend", False):
        return {"attn_implementation": ATTENTION}
    return {}


def _load_error(config: ModelConfig, what: str, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines()[0]
    if Path(config.path).expanduser().is_dir() or config.path.startswith(BUILTIN):
        return ModelError(f"{config.path}: the {what} cannot be loaded: {reason}")
    return ModelError(
        f"model.path={config.path}: no local directory of that name, and the Hugging Face hub does not give its {what} "
        f"(no network, a typo, or no access). To use a local copy: --set model.path=DIR"
    )
