"""A GGUF file of a model directory: written part by part, and read back."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llmkit.config.schema import ModelConfig
from llmkit.convert.gguf_files.encoding import encode, num_bytes
from llmkit.convert.gguf_files.families import Family, InFormat, family_of
from llmkit.convert.gguf_files.metadata import add_metadata, notes_on, rope_factors
from llmkit.convert.gguf_files.recipes import RECIPES, Recipe
from llmkit.convert.gguf_files.vocabulary import add_vocabulary, read_vocabulary
from llmkit.convert.tensor_files import TensorShape
from llmkit.convert.tensor_source import TensorSource, row_parts
from llmkit.data.preparing.progress import with_progress
from llmkit.errors import ConfigError
from llmkit.models.loading import load_on_meta, load_tokenizer

FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Export:
    """What goes into a file.

    Attributes:
        tensors: under the format's names.
        recipe: which type each gets.
        config: of the model, in transformers' words.
        family: of the model.
        tokenizer: of the model.
        name: of the model, for people.
    """

    tensors: TensorSource
    recipe: Recipe
    config: Any
    family: Family
    tokenizer: PreTrainedTokenizerBase
    name: str

    @cached_property
    def types(self) -> dict[str, str]:
        """Type of each tensor."""
        return {name: self.recipe.type_of(name, entry) for name, entry in self.tensors.tensors.items()}

    @property
    def num_bytes(self) -> int:
        """Of all tensors."""
        return sum(num_bytes(kind, self.tensors.tensors[name].shape) for name, kind in self.types.items())

    def notes(self) -> list[str]:
        """What the user should know of the result."""
        usual = RECIPES[self.recipe.name]
        kinds = Counter(kind for kind in self.types.values() if kind != "F32" or usual == "F32")
        return [*notes_on(self.config), "types: " + ", ".join(f"{n} of {kind}" for kind, n in kinds.items())]


def prepare(directory: Path, source: TensorSource, recipe: str, vocab_size: int | None) -> Export:
    """Look at a model.

    Args:
        directory: with its configuration and tokenizer.
        source: of its weights.
        recipe: one of `RECIPES`.
        vocab_size: rows of the embedding, where they are not the configuration's.

    Raises:
        ConfigError: it cannot be written so, or the package gguf is not installed.
        CheckpointError, ModelError: a part of it is missing, or of another model.
    """
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ConfigError("--to gguf needs the package gguf: pip install 'llmkit[gguf]'") from None
    config = ModelConfig(path=str(directory))
    model: Any = load_on_meta(config)
    if vocab_size is not None:
        model.resize_token_embeddings(vocab_size, mean_resizing=False)
    family = family_of(model.config)
    is_tied = bool(model.config.tie_word_embeddings)
    return Export(
        tensors=_WithFactors(InFormat(source, model, family), rope_factors(model.config)),
        recipe=Recipe(recipe, model.config.num_hidden_layers, is_tied),
        config=model.config,
        family=family,
        tokenizer=load_tokenizer(config),
        name=directory.resolve().name,
    )


def write(export: Export, out: Path) -> None:
    """Write the file.

    Raises:
        ConfigError: the tokenizer is of a kind that cannot be written.
        ConvertError: a number is not finite, or too large for its type.
    """
    import gguf

    shapes = export.tensors.tensors
    vocabulary = read_vocabulary(export.tokenizer, export.config.vocab_size)
    writer = gguf.GGUFWriter(None, export.family.name)
    add_metadata(writer, export.config, export.family, export.name, export.recipe.name)
    add_vocabulary(writer, vocabulary, export.tokenizer)
    for name, kind in export.types.items():
        shape = shapes[name].shape
        writer.add_tensor_info(
            name, shape, _float32(), num_bytes(kind, shape), raw_dtype=gguf.GGMLQuantizationType[kind]
        )
    try:
        writer.write_header_to_file(out)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        (file,) = writer.fout
        writer.write_padding(file, file.tell())
        for name, kind in with_progress(export.types.items(), len(export.types), "Writing tensors"):
            for rows in row_parts(shapes[name]):
                file.write(encode(export.tensors.read(name, rows), kind, name))
            writer.write_padding(file, num_bytes(kind, shapes[name].shape))
    finally:
        writer.close()


class _WithFactors:
    """A model's tensors, and where it has them the factors of its rotary positions, which are no weights."""

    def __init__(self, source: TensorSource, factors: Tensor | None) -> None:
        self._source, self._factors = source, factors
        extra = {} if factors is None else {FACTORS: TensorShape(torch.float32, tuple(factors.shape))}
        self.tensors = {**extra, **source.tensors}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        if name == FACTORS and self._factors is not None:
            return self._factors
        return self._source.read(name, rows)


def _float32() -> Any:
    import numpy as np

    return np.dtype(np.float32)
