"""Sizes that must divide the widths of adapted modules, looked at before any weight is loaded."""

from collections.abc import Iterator
from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from llmkit.adapters.target_modules import adapted_modules
from llmkit.errors import ConfigError

Side = Literal["in", "out", "both"]
SIDES: dict[str, str] = {"in": "inputs", "out": "outputs"}


def check_divides(model: nn.Module, config: Any, setting: str, size: int, *, of: Side) -> None:
    """Refuse a size that does not divide the inputs, the outputs, or both, of every adapted module.

    Raises:
        ConfigError: names the first module that it does not divide, and sizes that divide them all.
    """
    widths = {(name, side): width for name, side, width in module_widths(model, config) if of in (side, "both")}
    for (name, side), width in widths.items():
        if width % size:
            fitting = common_divisors(set(widths.values()))
            near = sorted(sorted(fitting, key=lambda one: abs(one - size))[:4])
            raise ConfigError(
                f"adapter.{setting}={size} does not divide the {width} {SIDES[side]} of {name}; these would: "
                f"{', '.join(map(str, near))}. Or leave the module out of adapter.target_modules"
            )


def module_widths(model: nn.Module, config: Any) -> Iterator[tuple[str, str, int]]:
    """Name, `in` or `out`, and width, for the linear layers that an adapter's options choose."""
    for name, module in adapted_modules(model, config).items():
        if isinstance(module, nn.Linear):  # weights of 4 bits have another shape than the layer
            yield name, "in", module.in_features
            yield name, "out", module.out_features
        elif isinstance(module, Conv1D):
            yield name, "in", module.nx
            yield name, "out", module.nf


def common_divisors(widths: set[int]) -> list[int]:
    """Numbers that divide all widths, in order."""
    smallest = min(widths)
    return [size for size in range(1, smallest + 1) if all(width % size == 0 for width in widths)]
