"""Rows that a run adds to embeddings and output head: which of them an adapter trains, and in which modules."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from llmkit.adapters.target_modules import adapted_modules, matches
from llmkit.errors import ConfigError
from llmkit.models.vocabulary import is_tied


def vocabulary_modules(model: Any) -> dict[str, nn.Module]:
    """The embedding, and the output head where it has weights of its own, by their full names."""
    wanted = [model.get_input_embeddings()]
    if not is_tied(model):
        wanted.append(model.get_output_embeddings())
    return {name: module for name, module in model.named_modules() if any(module is one for one in wanted)}


def rows_to_train(model: Any, config: Any, new_tokens: Sequence[int]) -> dict[str, list[int]]:
    """Which rows of which modules train one by one; those that train as a whole are left out.

    Args:
        config: the adapter's options.
    """
    asked = list(getattr(config, "trainable_token_indices", ()))
    embedding = model.get_input_embeddings()
    return {
        name: sorted({*new_tokens, *(asked if module is embedding else ())})
        for name, module in vocabulary_modules(model).items()
        if not matches(name, config.modules_to_save)
    }


def check_new_tokens(model: Any, config: Any, *, by_row: bool) -> None:
    """Refuse options that would leave new rows untrained, or train them in two ways at once.

    Args:
        by_row: whether the adapter can train single rows beside what it adapts.

    Raises:
        ConfigError: names the module and the way out.
    """
    saved = getattr(config, "modules_to_save", ())
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    whole = {name: matches(name, saved) for name, module in model.named_modules() if module in ends}
    # A module that trains as a whole is a copy, which a head that shares its weights would not see.
    if not by_row or (is_tied(model) and any(whole.values())):
        if missing := [name for name, is_saved in whole.items() if not is_saved]:
            raise ConfigError(
                f"adapter.modules_to_save={list(saved)}: model.add_tokens adds rows to {' and '.join(missing)} too, "
                "which would stay untrained; name all of them, or use adapter.name=lora without"
            )
        return
    adapted = adapted_modules(model, config) if hasattr(config, "target_modules") else {}
    for name, module in vocabulary_modules(model).items():
        if name in adapted:
            raise ConfigError(
                f"adapter.target_modules: '{name}' has rows of new tokens (model.add_tokens), which train by "
                "themselves; leave it out, or name it in adapter.modules_to_save"
            )
        if getattr(module, "bias", None) is not None and not matches(name, saved):
            raise ConfigError(
                f"adapter: '{name}' has a bias, and the rows of new tokens (model.add_tokens) cannot train by "
                f"themselves beside one; set adapter.modules_to_save=[{name.rpartition('.')[2]}]"
            )
