"""Find a checkpoint and load its model and tokenizer; every fault of a directory is told before weights are read."""

import logging
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from llmkit import plugins
from llmkit.config.schema import ModelConfig
from llmkit.errors import ModelError
from llmkit.memory import during
from llmkit.models.directory import check_model, check_tokenizer
from llmkit.models.hub import reaching_hub
from llmkit.models.packed import ATTENTION
from llmkit.models.quantizing import keep_differentiable, quantization_options
from llmkit.models.vocabulary import Growth, extend_tokenizer, grow_embeddings, grows

# Its bars for files that take milliseconds would break ours.
transformers_logging.disable_progress_bar()

logger = logging.getLogger(__name__)

BUILTIN = "builtin:"
MAIN = "main"
NO_LIMIT = 1 << 30
"""What a model that names no limit has for its context."""
LOAD_ERRORS = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, ImportError,
    SafetensorError, StrictDataclassError, pickle.UnpicklingError,
)  # fmt: skip
"""What reading a checkpoint raises, depending on what is wrong with it."""


def checkpoint_path(config: ModelConfig, *, needs_weights: bool = True) -> str:
    """Directory, or Hugging Face name, of the model; `builtin:` models are made when they are first asked for.

    Args:
        needs_weights: refuse a directory without them.

    Raises:
        ModelError: a local directory that is not there or lacks a part.
        PluginError: no built-in model has that name.
    """
    if config.path.startswith(BUILTIN):
        plugin = plugins.load("models", config.path.removeprefix(BUILTIN))
        return str(plugin.build(plugin.Config()))
    path = Path(config.path).expanduser()
    if path.is_dir():
        with during("loading", f"loading model.path={config.path}"):
            check_model(path, needs_weights=needs_weights)
        return str(path)
    if path.exists():
        raise ModelError(f"model.path={config.path}: this is a file; give the directory that holds config.json")
    _check_hub_name("model.path", config.path)
    return config.path


def lasting_name(config: ModelConfig) -> str:
    """The model's name for what is derived from it: local directories in full, everything else as it was given."""
    path = Path(config.path).expanduser()
    return str(path.resolve()) if path.is_dir() and not config.path.startswith(BUILTIN) else config.path


def load_model(config: ModelConfig) -> nn.Module:
    """The causal language model, in evaluation mode, on the CPU.

    Raises:
        ModelError: the checkpoint cannot be found, read, or is not a causal language model.
    """
    path = checkpoint_path(config)
    options = _hub_options(config)
    dtype = config.dtype if config.dtype == "auto" else getattr(torch, config.dtype)
    with _loading(config, "model"):
        # Weights of another shape come back in the report, which says more than the error would.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            dtype=dtype,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **_attention(path, options),
            **quantization_options(config),
            **options,
        )
    model, report = loaded
    _check_weights(config.path, report)
    _grow(model, config)
    keep_differentiable(model)
    return model.eval()


def load_weights(model: nn.Module, directory: Path) -> None:
    """Give `model` the weights of a checkpoint of its own architecture, bit for bit.

    Raises:
        ModelError: the checkpoint cannot be read or has other weights.
    """
    dtype: Any = next(model.parameters()).dtype
    with _loading(ModelConfig(path=str(directory)), "model"):
        saved = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
        model.load_state_dict(saved.state_dict())


def context_length(config: ModelConfig, *, needs_weights: bool = True) -> int:
    """Most tokens that the model can take; a model that names no limit has a very large one."""
    return getattr(load_text_config(config, needs_weights=needs_weights), "max_position_embeddings", None) or NO_LIMIT


def load_text_config(config: ModelConfig, *, needs_weights: bool = True) -> PreTrainedConfig:
    """What `config.json` says of the language model: heads, layers, context.

    Raises:
        ModelError: the checkpoint cannot be found, or its configuration cannot be read.
    """
    path = checkpoint_path(config, needs_weights=needs_weights)
    with _loading(config, "model"):
        return AutoConfig.from_pretrained(path, **_hub_options(config)).get_text_config()


def load_on_meta(config: ModelConfig) -> nn.Module:
    """The model without its weights, which need not be there: shapes and names only, no memory."""
    path = checkpoint_path(config, needs_weights=False)
    with _loading(config, "model"), torch.device("meta"):
        architecture = AutoConfig.from_pretrained(path, **_hub_options(config))
        model = AutoModelForCausalLM.from_config(architecture, trust_remote_code=config.trust_remote_code)
        _grow(model, config)
        return model


def load_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, with the tokens that the run adds.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    tokenizer = _read_tokenizer(config)
    if grows(config) and (known := extend_tokenizer(tokenizer, config).superfluous):
        logger.warning("model.add_tokens has no effect on %s: the tokenizer has them already", ", ".join(known))
    return tokenizer


def new_tokens(config: ModelConfig) -> tuple[int, ...]:
    """Ids of the tokens that the run adds to the model's vocabulary."""
    return _growth(config).token_ids if grows(config) else ()


def _growth(config: ModelConfig) -> Growth:
    return extend_tokenizer(_read_tokenizer(config), config)


def _grow(model: nn.Module, config: ModelConfig) -> None:
    if grows(config):
        grow_embeddings(model, _growth(config), config.pad_vocab_to_multiple_of)


def _read_tokenizer(config: ModelConfig) -> PreTrainedTokenizerBase:
    path = (
        checkpoint_path(config, needs_weights=False)
        if config.tokenizer is None
        else str(Path(config.tokenizer).expanduser())
    )
    if Path(path).is_dir():
        check_tokenizer(Path(path))
    elif config.tokenizer is not None:
        _check_hub_name("model.tokenizer", config.tokenizer)
    with _loading(config, "tokenizer"):
        return AutoTokenizer.from_pretrained(path, **_hub_options(config))


def check_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase, config: ModelConfig) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Raises:
        ModelError: names both sizes.
    """
    embedding: Any = model.get_input_embeddings()  # type: ignore[operator] - a transformers model
    if len(tokenizer) > embedding.num_embeddings:
        raise ModelError(
            f"{config.tokenizer or config.path}: the tokenizer has {len(tokenizer)} tokens, the model embeddings for "
            f"{embedding.num_embeddings}; they are of different models. Name the right one with model.tokenizer"
        )


def _check_hub_name(setting: str, name: str) -> None:
    """Refuse what can only be a path: nothing is there."""
    if name.startswith((".", "~", "/")) or name.count("/") > 1:
        raise ModelError(f"{setting}={name}: no such directory")


def _check_weights(name: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that do not fill the model; name those that it has no place for."""
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{name}: the checkpoint lacks {len(missing)} weights that its config.json asks for "
            f"({_first(missing)}); it is incomplete or of another model"
        )
    if mismatched := sorted(report["mismatched_keys"]):
        key, there, wanted = mismatched[0]
        raise ModelError(
            f"{name}: {len(mismatched)} weights have other shapes than its config.json says ({key}: {list(there)}, "
            f"not {list(wanted)}); config.json and weights are of different models"
        )
    if unused := sorted(report["unexpected_keys"]):
        logger.warning("%s: the model has no place for %d weights: %s", name, len(unused), _first(unused))


def _first(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")


def _hub_options(config: ModelConfig) -> dict[str, Any]:
    return {"revision": config.revision or MAIN, "trust_remote_code": config.trust_remote_code}


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


@contextmanager
def _loading(config: ModelConfig, what: str) -> Iterator[None]:
    """Turn every fault of the block into one line; transformers' own reports of many lines stay silent."""
    setting, name = "model.path", config.path
    if what == "tokenizer" and config.tokenizer is not None:
        setting, name = "model.tokenizer", config.tokenizer
    is_local = name.startswith(BUILTIN) or Path(name).expanduser().is_dir()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with nullcontext() if is_local else reaching_hub(name, config.revision or MAIN):
            yield
    except LOAD_ERRORS as error:
        if is_local or not isinstance(error, OSError | HFValidationError):
            raise ModelError(f"{name}: the {what} cannot be loaded: {_reason(error)}") from error
        raise ModelError(
            f"{setting}={name}: no local directory of that name, and the Hugging Face hub does not give its {what} "
            f"(no network, a typo, or no access). To use a local copy: --set {setting}=DIR"
        ) from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def _reason(error: Exception) -> str:
    """What an error says in one line."""
    if isinstance(error, pickle.UnpicklingError):
        return "a .bin file is damaged, or holds more than weights"
    if isinstance(error, KeyError):
        return f"a file of it lacks {error}"
    first, *rest = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return f"{first} {rest[0]}" if first.endswith(":") and rest else first
