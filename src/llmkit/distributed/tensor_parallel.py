"""Tensor parallelism (arXiv:1909.08053): attention heads and the MLP's inner units are divided among processes.

Embeddings and output head stay whole, so everything outside the layers computes as it does in one process.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from llmkit.errors import ConfigError

COLUMNS, ROWS, SUMMED = "colwise", "rowwise", "replicated_with_grad_allreduce"
"""Names in the plans of transformers: outputs divided, inputs divided, and whole weights that see their process's heads
alone, so that their gradients are parts of a sum."""
DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def divide_layers(model: nn.Module, base: Any, mesh: DeviceMesh) -> list[str]:
    """Divide the layers of a model, in place.

    Args:
        model: possibly inside an adapter.
        base: the transformers model within.
        mesh: of one dimension.

    Returns: names of parameters whose gradients are to be added up over the mesh.

    Raises:
        ConfigError: the architecture has no plan for it, or heads that do not divide.
    """
    config = base.config.get_text_config()
    check_divides(config, mesh.size())
    plan = layer_plan(base, config)
    prefix = next(name for name, module in model.named_modules() if module is getattr(base, base.base_model_prefix))
    summed: list[str] = []
    styles: dict[str, ParallelStyle] = {}
    for name, module in model.named_modules():
        kind = kind_of(name.removeprefix(f"{prefix}."), plan) if name.startswith(f"{prefix}.") else None
        if kind == SUMMED:
            summed += [f"{name}.{parameter}" for parameter, _ in module.named_parameters(recurse=False)]
        elif kind is not None:
            styles |= {f"{name}{part}": style for part, style in styles_of(name, module, kind).items()}
    # Paths in a plan are patterns, and names of adapters' modules have no special characters in them.
    parallelize_module(model, mesh, styles)
    return summed


def layer_plan(base: Any, config: Any) -> dict[str, str]:
    """Kinds of a backbone's modules by patterns of their names.

    Raises:
        ConfigError: there is no plan, or one with kinds that are not known here.
    """
    plan: Mapping[str, str] = getattr(config, "base_model_tp_plan", None) or {}
    inside = {name: kind for name, kind in plan.items() if name.startswith("layers.")}
    foreign = sorted({kind for kind in inside.values() if kind not in (COLUMNS, ROWS, SUMMED)})
    if not inside or foreign:
        why = f"its plan has parts that llmkit cannot divide ({', '.join(foreign)})" if inside else "it has no plan"
        raise ConfigError(
            f"parallel.tensor: {type(base).__name__} cannot be divided, {why}; use parallel.strategy=fsdp with "
            "parallel.tensor=1"
        )
    return inside


def check_divides(config: Any, size: int) -> None:
    """Refuse an architecture whose heads or inner units do not divide.

    Raises:
        ConfigError: names them.
    """
    for name in DIVIDED:
        count = getattr(config, name, None)
        if count is not None and count % size:
            raise ConfigError(f"parallel.tensor={size}: the model's {name} of {count} does not divide by it")


def kind_of(name: str, plan: Mapping[str, str]) -> str | None:
    """What a plan says of a module of this name."""
    for pattern, kind in plan.items():
        if re.fullmatch(re.escape(pattern).replace(r"\*", r"\d+"), name):
            return kind
    return None


def styles_of(name: str, module: nn.Module, kind: str) -> Mapping[str, ParallelStyle]:
    """Styles of a linear layer, or of the parts of one that has a LoRA beside it.

    Raises:
        ConfigError: it is neither.
    """
    style = ColwiseParallel if kind == COLUMNS else RowwiseParallel
    if isinstance(module, nn.Linear):
        return {"": style()}
    base, down, up = (getattr(module, part, None) for part in ("base_layer", "lora_A", "lora_B"))
    if not isinstance(base, nn.Linear) or not isinstance(down, nn.ModuleDict) or not isinstance(up, nn.ModuleDict):
        raise ConfigError(
            f"parallel.tensor: {name} is a {type(module).__name__}, which cannot be divided; use adapter.name=full or "
            "lora, or parallel.strategy=fsdp"
        )
    # Of the product B A, the factor at the divided side is divided with it.
    divided, factors = ("lora_B", up) if kind == COLUMNS else ("lora_A", down)
    return {".base_layer": style()} | {f".{divided}.{adapter}": style() for adapter in factors}
