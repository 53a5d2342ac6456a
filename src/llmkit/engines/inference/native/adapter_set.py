"""Low-rank adapters beside a model's linear layers, each row of a step with its own."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from llmkit.engines.inference.native.adapter_files import LowRankAdapter
from llmkit.engines.inference.native.runner import Step
from llmkit.engines.inference.transfers import to_device
from llmkit.errors import RequestError


@dataclass
class _Applied(threading.local):
    """Which tokens of the step at hand go through which adapter; empty in every thread but the engine's."""

    tokens: tuple[tuple[str, Tensor | None], ...] = ()


class AdapterSet:
    """Adapters by name. The model's own weights stay untouched, and so does every pass that is not a step's."""

    def __init__(self, model: nn.Module) -> None:
        self._modules = plain_modules(model)
        self._factors: dict[nn.Module, dict[str, tuple[Tensor, Tensor]]] = {}
        self._hooks: dict[nn.Module, Any] = {}
        self._applied = _Applied()
        self._device = next(model.parameters()).device

    def __deepcopy__(self, memo: dict[int, Any]) -> "AdapterSet":
        """Copies of the model, such as a reference model, have no part in the adapters."""
        return self

    def objection(self, name: str, adapter: LowRankAdapter) -> str | None:
        """None: whatever fits the model can be held.

        Raises:
            RequestError: it does not fit.
        """
        fitting_layers(self._modules, name, adapter)
        return None

    def load(self, name: str, adapter: LowRankAdapter) -> None:
        """Put an adapter beside the layers that it is for.

        Raises:
            RequestError: it does not fit the model.
        """
        for path, module in fitting_layers(self._modules, name, adapter).items():
            weight: Tensor = module.weight  # type: ignore[assignment] - of a linear layer
            kind = torch.float32 if not weight.is_floating_point() else weight.dtype
            down, up = (factor.to(weight.device, kind) for factor in adapter.factors[path])
            self._factors.setdefault(module, {})[name] = (down, up)
            if module not in self._hooks:
                self._hooks[module] = module.register_forward_hook(self._add)

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        for module, factors in list(self._factors.items()):
            factors.pop(name, None)
            if not factors:
                del self._factors[module]
                self._hooks.pop(module).remove()

    @contextmanager
    def applied(self, step: Step) -> Iterator[None]:
        """Tokens of the block's forward pass go through the adapters that the step names."""
        self._applied.tokens = _tokens_by_adapter(step, self._device)
        try:
            yield
        finally:
            self._applied.tokens = ()

    def close(self) -> None:
        """Take everything out of the model."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._factors.clear()

    def _add(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor | None:
        """The layer's output with `up (down x)` added for the tokens of each adapter."""
        if not self._applied.tokens:
            return None
        hidden, result = given[0].flatten(0, -2), output.flatten(0, -2).clone()
        for name, tokens in self._applied.tokens:
            factors = self._factors.get(module, {}).get(name)
            if factors is None:
                continue
            chosen = hidden if tokens is None else hidden.index_select(0, tokens)
            added = ((chosen.to(factors[0].dtype) @ factors[0].T) @ factors[1].T).to(result.dtype)
            if tokens is None:
                result += added
            else:
                result.index_add_(0, tokens, added)
        return result.view(output.shape)


def plain_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Modules by their paths, without what training adapters put around them."""
    return {_plain(name): module for name, module in model.named_modules()}


def fitting_layers(modules: Mapping[str, nn.Module], name: str, adapter: LowRankAdapter) -> dict[str, nn.Module]:
    """The layers that an adapter is for, by their paths.

    Raises:
        RequestError: it does not fit the model.
    """
    return {path: _target(modules, name, path, factors) for path, factors in adapter.factors.items()}


def _target(modules: Mapping[str, nn.Module], name: str, path: str, factors: tuple[Tensor, Tensor]) -> nn.Module:
    module = modules.get(path)
    shape = _shape(module)
    if module is None or shape is None:
        what = "no such layer" if module is None else f"a {type(module).__name__} there, not a linear layer"
        raise RequestError(f"adapter {name!r} is for {path}, and the model has {what}; it is of another base model")
    fits = (factors[1].shape[0], factors[0].shape[1])
    if fits != shape:
        raise RequestError(
            f"adapter {name!r}: its factors for {path} make a {fits[0]} x {fits[1]} matrix, and the layer is "
            f"{shape[0]} x {shape[1]}; it is of another base model"
        )
    return module


def _plain(name: str) -> str:
    """A module's name without what training adapters put around it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def _shape(module: nn.Module | None) -> tuple[int, int] | None:
    """Outputs and inputs of a linear layer, whichever way its class keeps the matrix."""
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if type(module).__name__ == "Conv1D":
        weight: Any = getattr(module, "weight", None)
        return weight.shape[1], weight.shape[0]
    return None


def _tokens_by_adapter(step: Step, device: torch.device) -> tuple[tuple[str, Tensor | None], ...]:
    """Indices of each adapter's tokens; None when all are."""
    names = [name for name in dict.fromkeys(step.adapters) if name is not None]
    if not names:
        return ()
    if len(names) == 1 and all(step.adapters):
        return ((names[0], None),)
    rows = [-1 if name is None else names.index(name) for name in step.adapters]
    of_token = np.repeat(rows, np.diff(step.query_starts.numpy()))
    return tuple((name, to_device(np.flatnonzero(of_token == index), device)) for index, name in enumerate(names))
