"""Merge with the model in memory, for adapters that are more than products added to single weights."""

import logging
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.adapters import wrapping
from llmkit.adapters.adapter_files import adapter_state, read_weights
from llmkit.config.schema import ModelConfig
from llmkit.convert.merging.adapters import StoredAdapter
from llmkit.errors import CheckpointError, ConfigError, ConvertError
from llmkit.models.loading import load_model
from llmkit.models.vocabulary import is_tied

logger = logging.getLogger(__name__)


def load_with_adapter(adapter: StoredAdapter, base: ModelConfig) -> Any:
    """The base model in float32 with the adapter on it.

    Raises:
        CheckpointError: the adapter is of another model.
        ModelError: the base model cannot be loaded.
    """
    model: Any = load_model(base)
    state = read_weights(adapter.path)
    _fit_rows(model, state)
    if is_tied(model) and _touches_one_end(adapter, model, state):
        untie(model)
    try:
        wrapped = wrapping.wrap(model, adapter.config, adapter.kind.lower())
        wrapping.load_state(wrapped, state, adapter.path)
    except (ConfigError, RuntimeError) as error:
        reason = next((line.strip() for line in str(error).splitlines() if "size mismatch" in line), str(error))
        raise CheckpointError(
            f"{adapter.path}: does not fit the base model {base.path}: {reason.rstrip('.')}. Name the right one with "
            "--base"
        ) from error
    if missing := sorted(adapter_state(wrapped).keys() - state.keys()):
        raise CheckpointError(
            f"{adapter.path}: {len(missing)} weights are missing ({missing[0]}); the adapter is damaged, or of another "
            "model"
        )
    return wrapped.eval()


def merged_model(wrapped: Any) -> Any:
    """The model with the update in its weights; `wrapped` is used up.

    Raises:
        ConvertError: it cannot be merged.
    """
    try:
        return wrapping.merge(wrapped)
    except ConfigError as error:
        raise ConvertError(str(error)) from error


def in_dtype(model: Any, dtype: torch.dtype) -> Any:
    """The model in another type.

    Raises:
        ConvertError: it has numbers that the type cannot hold.
    """
    model.to(dtype)
    for name, tensor in model.state_dict().items():
        if tensor.dtype.is_floating_point and not torch.isfinite(tensor.float()).all():
            raise ConvertError(f"{name}: has numbers that are not finite in {str(dtype).removeprefix('torch.')}")
    return model


def untie(model: Any) -> None:
    """Give the output head weights of its own."""
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
    for config in {id(one): one for one in (model.config, model.config.get_text_config())}.values():
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _fit_rows(model: Any, state: dict[str, Tensor]) -> None:
    """Give the model as many rows of embeddings as a whole embedding in the adapter has."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    names = {f"base_model.model.{name}.weight" for name, module in model.named_modules() if module in ends}
    rows = {len(state[name]) for name in names & state.keys()}
    if len(rows) == 1 and (wanted := rows.pop()) != ends[0].num_embeddings:
        model.resize_token_embeddings(wanted, mean_resizing=False)


def _touches_one_end(adapter: StoredAdapter, model: Any, state: dict[str, Tensor]) -> bool:
    """Whether embedding and head, which are the same in the base model, are no longer so with the adapter."""
    if getattr(adapter.config, "ensure_weight_tying", False):
        return False
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    paths = [name for name, module in model.named_modules() if any(module is end for end in ends)]
    # Rows that train one by one are shared like the weights they belong to.
    names = [name for name in state if "token_adapter" not in name and "trainable_tokens" not in name]
    return any(f".{path}." in name for path in paths for name in names)
