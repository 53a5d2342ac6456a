"""The whole weights of a model that is divided among processes: to save it, and to sample from it."""

import copy

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

EMPTY = 0


def skeleton(model: nn.Module, *, share_frozen: bool) -> nn.Module:
    """A copy of a model with empty parameters; to be made before the model is divided.

    Args:
        share_frozen: give it the parameters that do not train themselves, which needs no memory.
    """
    parts: dict[int, object] = {}
    for parameter in model.parameters():
        shared = share_frozen and not parameter.requires_grad
        parts[id(parameter)] = parameter if shared else _emptied(parameter)
    return copy.deepcopy(model, parts)


def _emptied(parameter: nn.Parameter) -> nn.Parameter:
    return nn.Parameter(parameter.detach().new_empty(EMPTY), requires_grad=parameter.requires_grad)


def whole_tensor(parameter: Tensor) -> Tensor:
    """A parameter without its divisions; all processes take part."""
    value = parameter.detach()
    return value.full_tensor() if isinstance(value, DTensor) else value


@torch.no_grad()
def fill(whole: nn.Module, model: nn.Module, device: torch.device, *, keep: bool = True) -> None:
    """Give a skeleton copies of the weights of its model.

    Args:
        whole: what `skeleton` made of `model`, or one that was filled before, which keeps its memory.
        device: where its weights lie.
        keep: whether this process wants them; one that does not takes part all the same.
    """
    targets = dict(whole.named_parameters())
    for name, parameter in model.named_parameters():
        if targets[name] is parameter:
            continue
        value = whole_tensor(parameter)
        if not keep:
            continue
        target = targets[name]
        if target.shape == value.shape and target.device == device:
            target.copy_(value)
        else:
            target.data = value.to(device, copy=True)
    for ours, theirs in zip(whole.buffers(), model.buffers(), strict=True):
        if keep and ours.shape == theirs.shape:
            ours.copy_(theirs)
