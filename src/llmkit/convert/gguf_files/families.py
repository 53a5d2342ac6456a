"""Which models llama.cpp's format can hold: how their tensors are called there and what is changed in them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.convert.tensor_files import TensorShape
from llmkit.convert.tensor_source import TensorSource
from llmkit.errors import CheckpointError, ConfigError


@dataclass(frozen=True)
class Family:
    """Models that llama.cpp runs alike.

    Attributes:
        name: of the architecture in the format.
        interleaved: rotary positions turn neighbouring rows of a head, and not its two halves.
        norm_shift: what is added to the weights of norms; Gemma's multiply by one more than they are.
    """

    name: str
    interleaved: bool = False
    norm_shift: float = 0.0


FAMILIES: Mapping[str, Family] = {
    "LlamaForCausalLM": Family("llama", interleaved=True),
    "MistralForCausalLM": Family("llama", interleaved=True),
    "Qwen2ForCausalLM": Family("qwen2"),
    "Qwen3ForCausalLM": Family("qwen3"),
    "GemmaForCausalLM": Family("gemma", norm_shift=1.0),
    "Gemma2ForCausalLM": Family("gemma2", norm_shift=1.0),
    "Gemma3ForCausalLM": Family("gemma3", norm_shift=1.0),
}


def family_of(config: Any) -> Family:
    """The family of a model.

    Args:
        config: of transformers.

    Raises:
        ConfigError: it has none, or llama.cpp would compute something else.
    """
    names = config.architectures or ["a model that names no architecture"]
    family = FAMILIES.get(names[0])
    if family is None:
        raise ConfigError(f"--to gguf: {names[0]} cannot be written so; what can: {', '.join(FAMILIES)}")
    if getattr(config, "attn_logit_softcapping", None) and family.name == "gemma3":
        raise ConfigError("--to gguf: attn_logit_softcapping of a Gemma 3 has no place in the format")
    # llama.cpp divides scores by this and takes no other number; Gemma 2 of 27B is known to it by its size.
    scalar = getattr(config, "query_pre_attn_scalar", None)
    usual = (config.head_dim, config.hidden_size / config.num_attention_heads) if scalar else ()
    if scalar and scalar not in usual:
        raise ConfigError(f"--to gguf: query_pre_attn_scalar={scalar} has no place in the format; head_dim has")
    return family


class InFormat:
    """A model's tensors under the format's names, and in its order of rows."""

    def __init__(self, source: TensorSource, model: Any, family: Family) -> None:
        """
        Args:
            source: tensors under the names of transformers.
            model: of transformers, without weights.
            family: of the model.

        Raises:
            CheckpointError: a tensor is missing, of another shape, or not of the model.
        """
        self._source, self._family, self._config = source, family, model.config
        self._old = _names(source, model, family)
        self.tensors = {name: source.tensors[old] for name, old in self._old.items()}

    def read(self, name: str, rows: slice | None = None) -> Tensor:
        """A tensor, or neighbouring rows of it."""
        old = self._old[name]
        heads = self._heads(name)
        if heads and self._family.interleaved:
            return self._interleaved(old, heads, rows)
        tensor = self._source.read(old, rows)
        return tensor.float() + self._family.norm_shift if _is_norm(name) and self._family.norm_shift else tensor

    def _heads(self, name: str) -> int:
        kind = name.rsplit(".", 2)[-2]
        return {"attn_q": self._config.num_attention_heads, "attn_k": self._config.num_key_value_heads}.get(kind, 0)

    def _interleaved(self, old: str, heads: int, rows: slice | None) -> Tensor:
        """Row r of a head's first half and row r of its second become neighbours."""
        count = self._source.tensors[old].shape[0]
        size = count // heads
        start, stop = (0, count) if rows is None else rows.indices(count)[:2]
        first = start // size * size
        last = -(-stop // size) * size
        new = torch.arange(start, stop)
        within = new % size
        wanted = new - within + within % 2 * (size // 2) + within // 2
        return self._source.read(old, slice(first, last))[wanted - first]


def _is_norm(name: str) -> bool:
    return name.endswith("norm.weight")


def _names(source: TensorSource, model: Any, family: Family) -> dict[str, str]:
    """The names of transformers by those of the format."""
    import gguf

    architecture = next(key for key, name in gguf.MODEL_ARCH_NAMES.items() if name == family.name)
    names = gguf.get_tensor_name_map(architecture, model.config.num_hidden_layers)
    expected = _expected(source, model)
    found: dict[str, str] = {}
    for old in expected:
        new = names.get_name(old, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise CheckpointError(f"{old} has no place in the format's architecture {family.name}")
        found[new] = old
    return found


def _expected(source: TensorSource, model: nn.Module) -> list[str]:
    """Names of the model's weights, each once, which the source must hold."""
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters(remove_duplicate=True)}
    for name, shape in shapes.items():
        entry: TensorShape | None = source.tensors.get(name)
        if entry is None:
            raise CheckpointError(f"{name} of config.json's model is not among the weights")
        if entry.shape != shape:
            raise CheckpointError(f"{name} is {list(entry.shape)}, and config.json's model has {list(shape)}")
    doubled = {name for name, _ in model.named_parameters(remove_duplicate=False)} - shapes.keys()
    if extra := sorted(source.tensors.keys() - shapes.keys() - doubled):
        raise CheckpointError(f"{extra[0]} is no weight of config.json's model ({len(extra)} such)")
    return list(shapes)
