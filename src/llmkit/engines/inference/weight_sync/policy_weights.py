"""The policy's weights as a checkpoint has them: by its names, with an adapter's update in them, one after another."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor, nn
from transformers.core_model_loading import revert_weight_conversion

from llmkit.engines.inference.weight_sync.contract import Named
from llmkit.errors import EngineError
from llmkit.models.head import base_of
from llmkit.models.policy import Policy


class PolicyWeights:
    """Reads a policy that is whole in this process.

    What is in memory besides the policy is one layer at a time.
    """

    def __init__(self, policy: Policy) -> None:
        """
        Raises:
            EngineError: the policy is more than weights of a checkpoint, or has rounded ones.
        """
        self._model: Any = policy.model
        self._base: Any = base_of(policy.model)
        _check(self._model, self._base)

    def num_bytes(self, dtype: torch.dtype | None) -> int:
        """What the tensors take together in a type; an adapter's own weights count in."""
        return sum(parameter.numel() * (dtype or parameter.dtype).itemsize for parameter in self._base.parameters())

    @torch.no_grad()
    def tensors(self, dtype: torch.dtype | None) -> Iterator[Named]:
        """Names and values.

        Args:
            dtype: of the weights; None keeps their own. Buffers keep theirs in any case.

        Raises:
            EngineError: a layer's update cannot become part of its weights.
        """
        for group in _by_layer(_values(self._base, dtype)):
            # Architectures whose modules are built otherwise than their checkpoints, such as fused experts.
            yield from revert_weight_conversion(self._base, group).items()


def _check(model: Any, base: nn.Module) -> None:
    for config in getattr(model, "peft_config", {}).values():
        if not any(isinstance(module, BaseTunerLayer) for module in base.modules()):
            kind = getattr(config.peft_type, "value", config.peft_type)
            raise EngineError(
                f"an adapter of the kind {kind} is no update of weights, so no server can take it; use engine.name="
                "native, which samples from the policy itself, or adapter.name=lora"
            )
    for name, parameter in base.named_parameters():
        if not parameter.is_floating_point():
            raise EngineError(
                f"{name} is kept as {str(parameter.dtype).removeprefix('torch.')} (model.quantization), and servers "
                "need whole weights; use engine.sync.transport=adapter, or model.quantization=none"
            )


def _values(base: nn.Module, dtype: torch.dtype | None) -> Iterator[Named]:
    """Weights in a type, and buffers, without what an adapter has put around them; what is shared comes once."""
    seen: dict[int, tuple[str, bool]] = {}
    inside: tuple[str, ...] = ()
    for path, module in base.named_modules():
        if inside and path.startswith(inside):
            continue
        is_adapted = isinstance(module, BaseTunerLayer | AuxiliaryTrainingWrapper)
        if is_adapted:
            inside = (*inside, f"{path}.")
        original = _original(module) if is_adapted else module
        plain = _plain(module, path) if is_adapted else module
        for name, tensor in _own(plain, recurse=is_adapted):
            full = f"{path}.{name}" if path else name
            # Merged weights come and go, so they are known by what they were before.
            key = id(_find(original, name))
            if key not in seen:
                seen[key] = (full, is_adapted)
                is_cast = dtype is not None and isinstance(tensor, nn.Parameter)
                yield full, tensor.detach().to(dtype) if is_cast else tensor.detach()
            elif seen[key][1] != is_adapted:
                raise EngineError(
                    f"{full} shares its values with {seen[key][0]}, and the adapter changes one of them alone, which "
                    "a server with the base model's shape cannot; leave it out of adapter.target_modules"
                )


def _own(module: nn.Module, *, recurse: bool) -> Iterator[Named]:
    """What a checkpoint has of a module."""
    yield from module.named_parameters(recurse=recurse)
    for name, buffer in module.named_buffers(recurse=recurse):
        holder = module.get_submodule(name.rpartition(".")[0])
        if name.rpartition(".")[2] not in holder._non_persistent_buffers_set:
            yield name, buffer


def _plain(module: Any, path: str) -> nn.Module:
    """A layer with an adapter, as a layer of the same kind without one."""
    if isinstance(module, ModulesToSaveWrapper):
        return module.modules_to_save[module.active_adapters[0]] if module.active_adapters else module.original_module
    layer: Any = copy.deepcopy(module.token_adapter if isinstance(module, AuxiliaryTrainingWrapper) else module)
    try:
        layer.merge(safe_merge=True)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        raise EngineError(f"{path}: the adapter's update cannot become part of the weights: {error}") from error
    return layer.get_base_layer()


def _original(module: Any) -> nn.Module:
    """The layer that an adapter was put around."""
    if isinstance(module, ModulesToSaveWrapper):
        return module.original_module
    layer: Any = module.token_adapter if isinstance(module, AuxiliaryTrainingWrapper) else module
    return layer.get_base_layer()


def _find(module: nn.Module, name: str) -> Tensor:
    holder, _, last = name.rpartition(".")
    return getattr(module.get_submodule(holder), last)


def _by_layer(values: Iterator[Named]) -> Iterator[dict[str, Tensor]]:
    """Weights of one layer of the model together; what belongs to none of them, alone."""
    group: dict[str, Tensor] = {}
    current: str | None = None
    for name, tensor in values:
        layer = _layer_of(name)
        if group and (layer != current or layer is None):
            yield group
            group = {}
        group[name], current = tensor, layer
    if group:
        yield group


def _layer_of(name: str) -> str | None:
    parts = name.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), None)
    return None if number is None else ".".join(parts[: number + 1])
