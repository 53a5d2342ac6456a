"""Training on one device with PyTorch."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from llmkit import plugins
from llmkit.config.optim import OptimConfig
from llmkit.engines.training.contract import UpdateHooks
from llmkit.engines.training.engine_state import check_optimizer, load_optimizer, reading, write_state
from llmkit.engines.training.optimizers.contract import AveragingOptimizer, Optimizer
from llmkit.engines.training.parameter_groups import parameter_groups
from llmkit.engines.training.random_state import get_random_state, set_random_state
from llmkit.engines.training.schedule import learning_rate
from llmkit.engines.training.weight_average import WeightAverage
from llmkit.errors import ConfigError, TrainingError
from llmkit.formatting import listed
from llmkit.memory import during
from llmkit.models.policy import Policy
from llmkit.types import Source


class TorchEngine:
    """An optimizer plugin over the policy's trainable parameters.

    Attributes:
        num_updates: optimizer steps so far, the time before a resumption and skipped ones included.
        num_skipped: steps left out because a loss or gradient was not finite.
        skipped: why steps were left out, until somebody takes it away to tell of it.
    """

    def __init__(self, policy: Policy, config: OptimConfig, total_steps: int, hooks: UpdateHooks | None = None) -> None:
        """
        Args:
            policy: whose parameters with `requires_grad` train.
            config: of the optimizer.
            total_steps: optimizer steps of the whole run; the schedule ends there.
            hooks: what the adapter does at each update; None has nothing to do.

        Raises:
            PluginError: the optimizer is not installed.
            ConfigError: an average is kept of weights that the optimizer averages already.
        """
        self.policy = policy
        self._hooks = hooks
        self.num_updates = 0
        self.num_skipped = 0
        self.skipped: list[str] = []
        self._config = config
        self._total_steps = total_steps
        self._parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        plugin = plugins.load("optimizers", config.optimizer.name)
        self._optimizer: Optimizer = plugin.build(config.optimizer, parameter_groups(policy.model, config, hooks))
        self._average = WeightAverage(self._parameters, config.ema_decay) if config.ema_decay else None
        if self._average and isinstance(self._optimizer, AveragingOptimizer):
            raise ConfigError(
                f"optim.ema_decay={config.ema_decay}: optim.optimizer={config.optimizer.name} averages the weights "
                "itself; leave optim.ema_decay unset"
            )
        self._fault: str | None = None
        self._unchecked: Sequence[Source] | None = None

    def backward(self, loss: Tensor, sources: Sequence[Source] = ()) -> None:
        """Add a micro-batch's gradients."""
        self._check_gradients()
        if self._fault is None and not torch.isfinite(loss):
            self._refuse("loss", loss.item(), sources)
        # A step that is left out needs no gradients.
        if self._fault is None:
            with during("backward", f"the backward pass of a micro-batch of {len(sources):,} sequences"):
                loss.backward()
            self._unchecked = sources

    def step(self) -> dict[str, float]:
        """One optimizer step; the gradients are cleared."""
        if self._hooks and self._fault is None:
            self._hooks.before_update(self.policy.model)
        grad_norm = self._clip()
        rate = learning_rate(self.num_updates, self._config, self._total_steps)
        if self._fault is None:
            for group in self._optimizer.param_groups:
                group["lr"] = rate * group["learning_rate_ratio"]
            self._update()
            if self._hooks:
                self._hooks.after_update(self.policy.model, self.num_updates + 1)
            if self._average:
                self._average.update(self.num_updates + 1)
        else:
            self.skipped.append(self._fault)
            self.num_skipped += 1
        self._optimizer.zero_grad()
        self.num_updates += 1
        self._fault = self._unchecked = None
        return {"grad_norm": grad_norm, "learning_rate": rate}

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer and the average keep beside the weights."""
        kept = [value for state in self._optimizer.state_dict()["state"].values() for value in state.values()]
        tensors = [*kept, *(self._average.values if self._average else ())]
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))

    def discard(self) -> None:
        """Let go of the gradients of a step that will not be finished."""
        self._optimizer.zero_grad()

    @contextmanager
    def evaluation_weights(self) -> Iterator[bool]:
        """Within it the policy has the averaged weights where an average is kept; yields whether there is one."""
        if self._average is not None:
            with self._average.in_place():
                yield True
        else:
            with self.checkpoint_weights():
                yield isinstance(self._optimizer, AveragingOptimizer)

    @contextmanager
    def checkpoint_weights(self) -> Iterator[None]:
        """Within it the policy has the weights that a checkpoint holds: the optimizer's own average where it keeps one,
        else those in training."""
        if not isinstance(self._optimizer, AveragingOptimizer):
            yield
            return
        self._optimizer.eval()
        try:
            yield
        finally:
            self._optimizer.train()

    def save(self, directory: Path) -> None:
        """Write optimizer, average, schedule and random state into `directory`."""
        state = {
            "name": self._config.optimizer.name,
            "optimizer": self._optimizer.state_dict(),
            "num_updates": self.num_updates,
            "num_skipped": self.num_skipped,
            "average": self._average.values if self._average else None,
            "random": get_random_state(),
        }
        write_state(directory, state)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, bit for bit."""
        with reading(directory) as state:
            check_optimizer(state, self._config.optimizer.name)
            load_optimizer(self._optimizer, state["optimizer"])
            if self._average and state["average"] is not None:
                self._average.load(state["average"])
            self.num_updates, self.num_skipped = state["num_updates"], state["num_skipped"]
            if isinstance(self._optimizer, AveragingOptimizer):
                self._optimizer.train()
            set_random_state(state["random"])

    def _update(self) -> None:
        name, count = self._config.optimizer.name, sum(parameter.numel() for parameter in self._parameters)
        try:
            with during("optimizer", f"the step of optim.optimizer={name} on {count:,} weights"):
                self._optimizer.step()
        except BaseException:
            # Some weights may have moved: they are no longer those of the last finished step.
            self.num_updates += 1
            raise

    def _check_gradients(self) -> None:
        """Look at the last micro-batch's gradients before the next one adds its own and nobody can tell them apart."""
        if self._unchecked is not None:
            gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
            self._judge(float(nn.utils.get_total_norm(gradients)))

    def _clip(self) -> float:
        """Scale the gradients down to the greatest norm allowed; returns the norm before, NaN in a step left out."""
        if self._fault is not None:
            return math.nan
        limit = self._config.max_grad_norm or float("inf")
        grad_norm = float(nn.utils.clip_grad_norm_(self._parameters, limit))
        self._judge(grad_norm)
        return grad_norm

    def _judge(self, grad_norm: float) -> None:
        if not math.isfinite(grad_norm):
            self._optimizer.zero_grad()
            self._refuse("gradient", grad_norm, self._unchecked or ())
        self._unchecked = None

    def _refuse(self, what: str, value: float, sources: Sequence[Source]) -> None:
        """Stop the run, or remember that this step is to be left out."""
        step = self.num_updates + 1
        rows = f", in the micro-batch of rows {listed(sources)}" if sources else ""
        fault = f"the {what} is {value} at optimizer step {step}{rows}; this step has changed nothing"
        if self._config.on_nonfinite == "raise":
            raise TrainingError(
                f"{fault}. Look at these rows; a lower optim.learning_rate or device.compute_dtype=float32 usually "
                "helps, and optim.on_nonfinite=skip leaves such steps out"
            )
        if self.num_skipped >= self._config.max_skipped_steps:
            raise TrainingError(
                f"{fault}. It is one more than optim.max_skipped_steps={self._config.max_skipped_steps}; a lower "
                "optim.learning_rate or device.compute_dtype=float32 usually helps"
            )
        self._fault = fault
