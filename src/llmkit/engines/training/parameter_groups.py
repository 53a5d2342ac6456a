"""Which parameters train, and what each of them is in the model."""

from torch import nn

from llmkit.config.optim import OptimConfig
from llmkit.engines.training.optimizers.contract import ParameterGroup, Role

DECAYED: tuple[Role, ...] = ("matrix", "output")


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[ParameterGroup]:
    """Trainable parameters by their role, with decay on matrices alone: not on norms, biases or embeddings."""
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    output = {id(parameter) for parameter in output_parameters(model)}
    found: dict[Role, list[nn.Parameter]] = {"matrix": [], "output": [], "embedding": [], "vector": []}
    for parameter in model.parameters():
        if parameter.requires_grad:
            found[role_of(parameter, embeddings, output)].append(parameter)
    return [
        ParameterGroup(role, parameters, config.learning_rate, config.weight_decay if role in DECAYED else 0.0)
        for role, parameters in found.items()
        if parameters
    ]


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
