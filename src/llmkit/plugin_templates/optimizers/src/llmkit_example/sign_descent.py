"""The optimizer, in a module of its own: PyTorch is imported when it is built, not when plugins are listed."""

from collections.abc import Callable
from typing import Any

import torch


class SignDescent(torch.optim.Optimizer):
    """Settings are in `param_groups`; what it gathers is in `state`, so that a resumed run goes on from it."""

    def __init__(self, groups: list[dict[str, Any]], *, momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """The learning rate is set in every group before each step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        state["smoothed"] = torch.zeros_like(parameter)
                    state["smoothed"].lerp_(parameter.grad, 1 - group["momentum"])
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.sub_(state["smoothed"].sign(), alpha=group["lr"])
