"""AdamW without a schedule: Algorithm 1 of arXiv:2405.15682.

Three sequences of weights: z takes the steps, x is their weighted average, and gradients are taken at
y = (1 - β) z + β x, which is what the model holds while it trains. x is not kept: it is (y - (1 - β) z) / β.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from llmkit.engines.training.optimizers.contract import ParameterGroup


class ScheduleFreeAdamW(Optimizer):
    """Two tensors of state for each weight, as AdamW has; a third one while the model holds the average."""

    def __init__(self, groups: Sequence[ParameterGroup], *, beta: float, beta2: float, eps: float) -> None:
        """
        Args:
            beta: share of the average in the weights that gradients are taken at.
            beta2: decay rate of the second moment estimate.
            eps: added to the denominator.
        """
        super().__init__([group.as_settings() for group in groups], {"beta": beta, "beta2": beta2, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of every parameter that has a gradient; returns what `closure`, which computes it, returns."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._step_one(parameter, parameter.grad, group)
        return loss

    def _step_one(self, y: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[y]
        if not state:
            state |= {"step": 0, "weight_sum": 0.0, "z": y.clone(), "moment": torch.zeros_like(y)}
        state["step"] += 1
        beta, beta2, z = group["beta"], group["beta2"], state["z"]
        state["moment"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        rate = group["lr"] * math.sqrt(1 - beta2 ** state["step"])
        state["weight_sum"] += rate**2
        share = rate**2 / state["weight_sum"] if rate else 0.0
        # β x, before z moves.
        y.sub_(z, alpha=1 - beta)
        if group["weight_decay"]:
            decayed = z.mul(1 - beta).add_(y)
            z.sub_(decayed, alpha=rate * group["weight_decay"])
        z.addcdiv_(gradient, state["moment"].sqrt().add_(group["eps"]), value=-rate)
        # x moves by its share towards z; then y lies between the two again.
        y.mul_(1 - share).add_(z, alpha=beta * share + 1 - beta)

    @torch.no_grad()
    def eval(self) -> None:
        """Put x, the average, into the model."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if state and "y" not in state:
                    state["y"] = parameter.clone()
                    parameter.sub_(state["z"], alpha=1 - group["beta"]).div_(group["beta"])

    @torch.no_grad()
    def train(self) -> None:
        """Put y back into the model, bit for bit."""
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state.get(parameter)
                if state and "y" in state:
                    parameter.copy_(state.pop("y"))
