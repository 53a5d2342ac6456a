"""Which parameters train, and what each of them is in the model."""

from torch import nn

from llmkit.config.optim import OptimConfig
from llmkit.engines.training.contract import UpdateHooks
from llmkit.engines.training.optimizers.contract import ParameterGroup, Role

ROLES: tuple[Role, ...] = ("matrix", "output", "embedding", "vector")
DECAYED: tuple[Role, ...] = ("matrix", "output")


def parameter_groups(model: nn.Module, config: OptimConfig, hooks: UpdateHooks | None = None) -> list[ParameterGroup]:
    """Trainable parameters by their role, with decay on matrices alone: not on norms, biases or embeddings.

    Args:
        hooks: of the adapter; says how many times the learning rate each parameter gets.
    """
    embeddings = {
        id(parameter) for module in model.modules() if is_embedding(module) for parameter in module.parameters()
    }
    output = {id(parameter) for parameter in output_parameters(model)}
    found: dict[tuple[Role, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ratio = hooks.learning_rate_ratio(name) if hooks else 1.0
            found.setdefault((role_of(parameter, embeddings, output), ratio), []).append(parameter)
    return [
        ParameterGroup(role, parameters, config.learning_rate, config.weight_decay if role in DECAYED else 0.0, ratio)
        for (role, ratio), parameters in sorted(found.items(), key=lambda item: (ROLES.index(item[0][0]), item[0][1]))
    ]


def is_embedding(module: nn.Module) -> bool:
    """Whether a module is an embedding, or an adapter's around one."""
    return isinstance(module, nn.Embedding) or isinstance(getattr(module, "base_layer", None), nn.Embedding)


def role_of(parameter: nn.Parameter, embeddings: set[int], output: set[int]) -> Role:
    """What a parameter is; an output head that shares the embedding is an embedding."""
    if id(parameter) in embeddings:
        return "embedding"
    if parameter.ndim < 2:
        return "vector"
    return "output" if id(parameter) in output else "matrix"


def output_parameters(model: nn.Module) -> list[nn.Parameter]:
    """Parameters of the layer that makes logits; none when the model does not say which it is."""
    find = getattr(model, "get_output_embeddings", None)
    layer = find() if find is not None else None
    return list(layer.parameters()) if isinstance(layer, nn.Module) else []
