"""Which models the C++ step can run, and where their parts are."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.models import norms
from llmkit.models.policy import Policy

FAMILIES = ("granite", "llama", "ministral", "mistral", "phi3", "qwen2", "qwen3", "seed_oss", "smollm3")
"""As `model_type` names them: RMSNorm before attention and MLP, rotary embedding by halves, gated SiLU."""
ROPE_TYPES = ("default", "linear", "llama3", "yarn")
"""Those whose angles do not depend on how long a sequence has become."""
MAX_HEAD_DIM = 512
"""As in `kernels/step_attention.h`."""
PROJECTIONS = {
    "self_attn.q_proj": ("query",),
    "self_attn.k_proj": ("key",),
    "self_attn.v_proj": ("value",),
    "self_attn.qkv_proj": ("query", "key", "value"),
    "self_attn.o_proj": ("output",),
    "mlp.gate_proj": ("gate",),
    "mlp.up_proj": ("up",),
    "mlp.gate_up_proj": ("gate", "up"),
    "mlp.down_proj": ("down",),
}
"""Which projections of a layer a linear module is, as rows one below the other."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Rows of a linear layer.

    Attributes:
        weight: [outputs, inputs], a view of the parameter.
        bias: [outputs], or None.
    """

    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True)
class LayerParts:
    """The weights of one decoder layer; head norms are None where the model has none."""

    attention_norm: Tensor
    query: Projection
    key: Projection
    value: Projection
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Projection
    mlp_norm: Tensor
    gate: Projection
    up: Projection
    down: Projection
    window: int
    rotates: bool


def model_objection(policy: Policy) -> str | None:
    """Why the C++ step cannot run this policy's model; None when it can."""
    model: Any = policy.model
    if policy.device.type != "cpu":
        return f"the policy is on {policy.device.type}, not on the CPU"
    kind = type(model)
    if not kind.__module__.startswith("transformers.models."):
        return f"the model is a {kind.__module__}.{kind.__name__}: an adapter around it, or no model of transformers"
    config = model.config
    if config.model_type not in FAMILIES:
        return f"the architecture is {config.model_type}, not one of {', '.join(FAMILIES)}"
    if not kind.__name__.endswith("ForCausalLM"):
        return f"the model is a {kind.__name__}, not a causal language model"
    return _config_objection(config) or _module_objection(model) or _type_objection(policy)


def compute_dtype(policy: Policy) -> torch.dtype:
    """The type that matrix products have in the trainer's forward pass."""
    return policy.model.dtype if policy.compute_dtype == torch.float32 else policy.compute_dtype


def layers(model: Any) -> Iterator[LayerParts]:
    """The weights of all decoder layers as they are now."""
    attention_widths, mlp_widths = _attention_widths(model.config), [model.config.intermediate_size] * 2
    for index, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        query, key, value = _split(attention, ("q_proj", "k_proj", "v_proj"), "qkv_proj", attention_widths)
        gate, up = _split(mlp, ("gate_proj", "up_proj"), "gate_up_proj", mlp_widths)
        yield LayerParts(
            attention_norm=layer.input_layernorm.weight,
            query=query,
            key=key,
            value=value,
            query_norm=_weight(attention, "q_norm"),
            key_norm=_weight(attention, "k_norm"),
            output=_rows(attention.o_proj),
            mlp_norm=layer.post_attention_layernorm.weight,
            gate=gate,
            up=up,
            down=_rows(mlp.down_proj),
            window=_window(model.config, index),
            rotates=bool(getattr(attention, "use_rope", True)),
        )


def projection_widths(config: Any, module: str) -> list[int]:
    """Outputs of each of a module's `PROJECTIONS`."""
    query, key, value = _attention_widths(config)
    inner, hidden = config.intermediate_size, config.hidden_size
    widths = {"query": query, "key": key, "value": value, "output": hidden, "gate": inner, "up": inner, "down": hidden}
    return [widths[name] for name in PROJECTIONS[module]]


def head_dim(config: Any) -> int:
    """Numbers of one attention head."""
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _config_objection(config: Any) -> str | None:
    rope = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    width, activation = head_dim(config), config.hidden_act
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
    if rope not in ROPE_TYPES:
        return f"the rotary embedding is of type {rope}, not one of {', '.join(ROPE_TYPES)}"
    if activation not in ("silu", "swish"):
        return f"the activation is {activation}, not silu"
    if width % 2 or width > MAX_HEAD_DIM:
        return f"heads have {width} dimensions, not an even number up to {MAX_HEAD_DIM}"
    if config.hidden_size % 2 or config.intermediate_size % 2:
        return f"hidden and inner size are {config.hidden_size} and {config.intermediate_size}, not even numbers"
    if kinds:
        return f"there are layers of the kind {', '.join(sorted(kinds))}"
    return None


def _module_objection(model: nn.Module) -> str | None:
    """Whether somebody put something else into the model: quantised layers, adapters, hooks."""
    for name, module in model.named_modules():
        kind = type(module)
        if module._forward_pre_hooks or any(hook is not norms.to_autocast for hook in module._forward_hooks.values()):
            return f"{name or 'the model'} has forward hooks"
        is_known = kind in (nn.Linear, nn.Embedding, nn.ModuleList, nn.Dropout) or kind.__module__.startswith(
            "transformers."
        )
        if not is_known:
            return f"{name} is a {kind.__module__}.{kind.__name__}: quantised or wrapped"
    return None


def _type_objection(policy: Policy) -> str | None:
    found = {parameter.dtype for parameter in policy.model.parameters()}
    named = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
    if len(found) > 1:
        return f"the parameters are of several types: {named}"
    if not {*found, policy.compute_dtype} <= {torch.float32, torch.bfloat16}:
        computed = str(policy.compute_dtype).removeprefix("torch.")
        return f"parameters are {named} and products {computed}; float32 and bfloat16 are known"
    return None


def _attention_widths(config: Any) -> list[int]:
    width = head_dim(config)
    return [config.num_attention_heads * width, *[config.num_key_value_heads * width] * 2]


def _split(module: Any, names: tuple[str, ...], merged: str, widths: list[int]) -> list[Projection]:
    """Projections that a model keeps apart, or as rows of one."""
    if not hasattr(module, merged):
        return [_rows(getattr(module, name)) for name in names]
    linear = getattr(module, merged)
    biases = [None] * len(widths) if linear.bias is None else linear.bias.detach().split(widths)
    return [Projection(*pair) for pair in zip(linear.weight.detach().split(widths), biases, strict=True)]


def _rows(linear: nn.Linear) -> Projection:
    return Projection(linear.weight.detach(), None if linear.bias is None else linear.bias.detach())


def _weight(module: nn.Module, name: str) -> Tensor | None:
    norm = getattr(module, name, None)
    return None if norm is None else norm.weight


def _window(config: Any, index: int) -> int:
    """Tokens that a query of the layer sees; 0 is all of them."""
    types = getattr(config, "layer_types", None)
    if types is not None and types[index] != "sliding_attention":
        return 0
    return getattr(config, "sliding_window", None) or 0
