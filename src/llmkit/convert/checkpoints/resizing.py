"""Which weights have a row for each token, and how many they are to have."""

from pathlib import Path
from typing import Any

from llmkit.config.schema import ModelConfig
from llmkit.convert.tensor_source import TensorSource
from llmkit.errors import CheckpointError, ConfigError
from llmkit.models.loading import load_on_meta, load_tokenizer
from llmkit.models.vocabulary import vocabulary_weights


def new_size(directory: Path, vocab_size: int | None, multiple: int | None) -> int:
    """Rows that a model's embedding is to have.

    Args:
        directory: of the model.
        vocab_size: so many.
        multiple: or as many as now, rounded up to a multiple of this.

    Raises:
        ConfigError: the tokenizer has more tokens, or the directory holds no model.
        ModelError: its configuration or tokenizer is damaged.
    """
    if not (directory / "config.json").is_file():
        raise ConfigError(f"{directory}: no config.json, so which weights have a row for each token is not known")
    config = ModelConfig(path=str(directory))
    model: Any = load_on_meta(config)
    now = model.get_input_embeddings().num_embeddings
    size = vocab_size if multiple is None else -(-now // multiple) * multiple
    assert size is not None
    largest = max(load_tokenizer(config).get_vocab().values())
    if size <= largest:
        raise ConfigError(f"--vocab-size {size}: the tokenizer has token {largest}; give at least {largest + 1}")
    return size


def sizes_by_name(directory: Path, source: TensorSource, size: int) -> dict[str, int]:
    """`size` for each weight of a checkpoint that has a row for each token.

    Raises:
        CheckpointError: the checkpoint has no such weight under the names of its model.
    """
    model = load_on_meta(ModelConfig(path=str(directory)))
    chosen = {id(weight) for weight in vocabulary_weights(model)}
    named = [name for name, weight in model.named_parameters(remove_duplicate=False) if id(weight) in chosen]
    found = {name: size for name in named if name in source.tensors}
    if not found:
        raise CheckpointError(f"{directory}: none of {', '.join(named)} is among the weights")
    return found
