"""Training on one device with PyTorch."""

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from llmkit.config.schema import OptimConfig
from llmkit.engines.training.contract import UpdateHooks
from llmkit.engines.training.random_state import get_random_state, set_random_state
from llmkit.engines.training.schedule import learning_rate
from llmkit.errors import CheckpointError, TrainingError
from llmkit.models.policy import Policy

STATE_FILE = "optimizer.pt"
SETTINGS = ("betas", "eps", "weight_decay", "learning_rate_ratio")
"""What a parameter group takes from the configuration; the learning rate is set at every step."""


class TorchEngine:
    """AdamW over the policy's trainable parameters."""

    def __init__(self, policy: Policy, config: OptimConfig, total_steps: int, hooks: UpdateHooks | None = None) -> None:
        """
        Args:
            policy: whose parameters with `requires_grad` train.
            config: of the optimizer.
            total_steps: optimizer steps of the whole run; the schedule ends there.
            hooks: what the adapter does at each update; None has nothing to do.
        """
        self.policy = policy
        self._hooks = hooks
        self._config = config
        self._total_steps = total_steps
        self._num_steps = 0
        self._parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(
            parameter_groups(policy.model, config.weight_decay, hooks),
            lr=config.learning_rate,
            betas=config.betas,
            eps=config.eps,
            fused=policy.device.type in ("cpu", "cuda"),
        )

    @property
    def num_updates(self) -> int:
        """How often `step` has changed the weights, the time before a resumption included."""
        return self._num_steps

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients."""
        if not torch.isfinite(loss):
            raise self._not_finite("loss", loss.item())
        loss.backward()

    def step(self) -> dict[str, float]:
        """One optimizer step; the gradients are cleared."""
        if self._hooks:
            self._hooks.before_update(self.policy.model)
        limit = self._config.max_grad_norm or float("inf")
        grad_norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        if not grad_norm < float("inf"):
            self._optimizer.zero_grad()
            raise self._not_finite("gradient", grad_norm)
        rate = learning_rate(self._num_steps, self._config, self._total_steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["learning_rate_ratio"]
        self._optimizer.step()
        self._num_steps += 1
        if self._hooks:
            self._hooks.after_update(self.policy.model, self._num_steps)
        self._optimizer.zero_grad()
        return {"grad_norm": grad_norm, "learning_rate": rate}

    def save(self, directory: Path) -> None:
        """Write optimizer, schedule and random state into `directory`."""
        state = {
            "optimizer": self._optimizer.state_dict(),
            "num_steps": self._num_steps,
            "random": get_random_state(),
        }
        torch.save(state, directory / STATE_FILE)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, bit for bit."""
        path = directory / STATE_FILE
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            # The state holds the settings of the run that saved it; this run's own may have changed.
            chosen = [{name: group[name] for name in SETTINGS} for group in self._optimizer.param_groups]
            self._optimizer.load_state_dict(state["optimizer"])
            for group, settings in zip(self._optimizer.param_groups, chosen, strict=True):
                group.update(settings)
        except (OSError, EOFError, RuntimeError, KeyError, ValueError, pickle.UnpicklingError) as error:
            raise CheckpointError(f"{path}: this optimizer state cannot be used: {error}") from error
        self._num_steps = state["num_steps"]
        set_random_state(state["random"])

    def _not_finite(self, what: str, value: float) -> TrainingError:
        return TrainingError(
            f"the {what} is {value} at optimizer step {self._num_steps + 1}; this step has changed nothing. A lower "
            "optim.learning_rate or device.compute_dtype=float32 usually helps"
        )


def parameter_groups(model: nn.Module, weight_decay: float, hooks: UpdateHooks | None = None) -> list[dict[str, Any]]:
    """Trainable parameters, with decay on matrices alone: not on norms, biases or embeddings.

    Each group also says how many times the learning rate its parameters get.
    """
    embeddings = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = parameter.ndim > 1 and id(parameter) not in embeddings
            ratio = hooks.learning_rate_ratio(name) if hooks else 1.0
            groups.setdefault((decays, ratio), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "learning_rate_ratio": ratio}
        for (decays, ratio), parameters in sorted(groups.items(), key=lambda item: (not item[0][0], item[0][1]))
    ]
