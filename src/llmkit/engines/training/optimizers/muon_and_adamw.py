"""Two optimizers that step as one: Muon for hidden matrices, AdamW for the rest."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.optim import Muon
from torch.optim import Optimizer as TorchOptimizer

from llmkit.engines.training.optimizers.adamw import adamw
from llmkit.engines.training.optimizers.contract import ParameterGroup
from llmkit.engines.training.optimizers.muon import Config


def muon_and_adamw(config: Config, groups: Sequence[ParameterGroup]) -> "JointOptimizer":
    """Muon over the two-dimensional weights inside the model, AdamW over everything else."""
    matrices, rest = divide(groups)
    optimizers: list[TorchOptimizer] = []
    if matrices:
        optimizers.append(
            Muon(
                [group.as_settings() for group in matrices],
                momentum=config.momentum,
                nesterov=config.nesterov,
                ns_steps=config.newton_schulz_steps,
                adjust_lr_fn="match_rms_adamw" if config.match_adamw else "original",
            )
        )
    if rest:
        scaled = [
            replace(group, learning_rate_ratio=group.learning_rate_ratio * config.adamw_learning_rate_ratio)
            for group in rest
        ]
        optimizers.append(adamw(scaled, config.betas, config.eps))
    return JointOptimizer(optimizers)


def divide(groups: Sequence[ParameterGroup]) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """What Muon trains, and what it does not.

    The experts of a mixture are stacked to three dimensions; they go with the rest.
    """
    matrices: list[ParameterGroup] = []
    rest: list[ParameterGroup] = []
    for group in groups:
        flat = [parameter for parameter in group.parameters if group.role == "matrix" and parameter.ndim == 2]
        chosen = {id(parameter) for parameter in flat}
        others = [parameter for parameter in group.parameters if id(parameter) not in chosen]
        if flat:
            matrices.append(replace(group, parameters=flat))
        if others:
            rest.append(replace(group, parameters=others))
    return matrices, rest


class JointOptimizer:
    """Optimizers over different parameters, used as one."""

    def __init__(self, optimizers: Sequence[TorchOptimizer]) -> None:
        self._optimizers = list(optimizers)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of each in turn."""
        return [group for optimizer in self._optimizers for group in optimizer.param_groups]

    def step(self) -> None:
        """A step of each."""
        for optimizer in self._optimizers:
            optimizer.step()

    def zero_grad(self) -> None:
        """Forget the gradients of all."""
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """The state of each, by its kind."""
        return {type(optimizer).__name__: optimizer.state_dict() for optimizer in self._optimizers}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            KeyError: the state lacks one of the optimizers.
        """
        for optimizer in self._optimizers:
            optimizer.load_state_dict(state_dict[type(optimizer).__name__])
