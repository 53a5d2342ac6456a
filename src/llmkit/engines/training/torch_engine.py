"""Training with PyTorch: on one device, or in one of several processes that add up their gradients."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from llmkit import plugins
from llmkit.config.optim import OptimConfig
from llmkit.distributed.gradients import Gradients
from llmkit.distributed.world import world
from llmkit.engines.training.contract import UpdateHooks
from llmkit.engines.training.engine_state import (
    EngineSnapshot,
    check_optimizer,
    load_optimizer,
    reading,
    take_snapshot,
)
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


@dataclass(frozen=True)
class Fault:
    """A loss or a gradient that is no finite number.

    Attributes:
        micro_batch: which of the step's, from 1.
        what: `loss` or `gradient`.
        value: of the loss, or of the gradient's norm.
        sources: rows of the micro-batch.
    """

    micro_batch: int
    what: str
    value: float
    sources: Sequence[Source]

    def describe(self, step: int) -> str:
        """In words for people."""
        rows = f", in the micro-batch of rows {listed(self.sources)}" if self.sources else ""
        return f"the {self.what} is {self.value} at optimizer step {step}{rows}; this step has changed nothing"


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
        self._world = world()
        parameters = [parameter for parameter in policy.model.parameters() if parameter.requires_grad]
        self._gradients = Gradients(parameters, self._world, policy.summed)
        plugin = plugins.load("optimizers", config.optimizer.name)
        if self._gradients.is_divided and not getattr(plugin, "WORKS_ON_PARTS", False):
            raise ConfigError(
                f"optim.optimizer={config.optimizer.name} needs whole weights, and this run divides them among "
                "processes; use optim.optimizer=adamw, or parallel.strategy=ddp with parallel.tensor=1"
            )
        # Optimizers and averages work on this process's parts, which are plain tensors.
        parts = {id(whole): part for part, whole in zip(self._gradients.parts, parameters, strict=True)}
        self._wholes = {id(part): whole for part, whole in zip(self._gradients.parts, parameters, strict=True)}
        groups = [
            replace(group, parameters=[parts[id(parameter)] for parameter in group.parameters])
            for group in parameter_groups(policy.model, config, hooks)
        ]
        self._optimizer: Optimizer = plugin.build(config.optimizer, groups)
        self._average = WeightAverage(self._gradients.parts, config.ema_decay) if config.ema_decay else None
        if self._average and isinstance(self._optimizer, AveragingOptimizer):
            raise ConfigError(
                f"optim.ema_decay={config.ema_decay}: optim.optimizer={config.optimizer.name} averages the weights "
                "itself; leave optim.ema_decay unset"
            )
        self._fault: Fault | None = None
        self._unchecked: Sequence[Source] | None = None
        self._num_micro_batches = 0

    def backward(self, loss: Tensor, sources: Sequence[Source] = ()) -> None:
        """Add a micro-batch's gradients."""
        self._check_gradients()
        self._num_micro_batches += 1
        if self._fault is None and not torch.isfinite(loss):
            self._refuse("loss", loss.item(), sources)
        # A step that is left out needs no gradients, but other processes may wait for this one's part.
        if self._fault is None or self._gradients.is_divided:
            with during("backward", f"the backward pass of a micro-batch of {len(sources):,} sequences"):
                loss.backward()
            self._unchecked = sources

    def step(self) -> dict[str, float]:
        """One optimizer step; the gradients are cleared."""
        if self._world.size > 1:
            self._check_gradients()
            self._share_fault()
        if self._fault is None:
            self._gradients.complete()
            if self._hooks:
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
            self.skipped.append(self._fault.describe(self.num_updates + 1))
            self.num_skipped += 1
        self._clear()
        self.num_updates += 1
        self._fault = self._unchecked = None
        self._num_micro_batches = 0
        return {"grad_norm": grad_norm, "learning_rate": rate}

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer and the average keep beside the weights."""
        kept = [value for state in self._optimizer.state_dict()["state"].values() for value in state.values()]
        tensors = [*kept, *(self._average.values if self._average else ())]
        return sum(tensor.nbytes for tensor in tensors if isinstance(tensor, Tensor))

    def discard(self) -> None:
        """Let go of the gradients of a step that will not be finished."""
        self._clear()

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

    def snapshot(self, *, copy: bool = True) -> EngineSnapshot:
        """Optimizer, average, schedule and random state, to be written while training goes on.

        Args:
            copy: off is for one that is written before the next step.
        """
        state = {
            "name": self._config.optimizer.name,
            "optimizer": self._optimizer.state_dict(),
            "num_updates": self.num_updates,
            "num_skipped": self.num_skipped,
            "average": self._average.values if self._average else None,
        }
        # Every share of the rows draws its own numbers.
        random = {f"random.{self._world.data_rank}": get_random_state()}
        return take_snapshot(state, random, self._whole_of, self._world, copy=copy)

    def save(self, directory: Path) -> None:
        """Write optimizer, average, schedule and random state into `directory`."""
        self.snapshot(copy=False).write(directory)

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, bit for bit with as many processes."""
        with reading(directory, self._whole_of, self._world) as (state, own):
            check_optimizer(state, self._config.optimizer.name)
            load_optimizer(self._optimizer, state["optimizer"])
            if self._average and state["average"] is not None:
                self._average.load(state["average"])
            self.num_updates, self.num_skipped = state["num_updates"], state["num_skipped"]
            if isinstance(self._optimizer, AveragingOptimizer):
                self._optimizer.train()
            random = own.get(f"random.{self._world.data_rank}")
            if random is not None:
                set_random_state(random)

    def _whole_of(self, name: str) -> Tensor | None:
        """The divided parameter that a tensor of the state is a part of the state of; None for any other tensor."""
        kind, *rest = name.split(".")
        if kind == "average":
            part = self._gradients.parts[int(rest[0])]
        elif kind == "optimizer" and rest[:1] == ["state"] and rest[2:] != ["step"]:
            parts = [part for group in self._optimizer.param_groups for part in group["params"]]
            part = parts[int(rest[1])]
        else:
            return None
        whole = self._wholes[id(part)]
        return whole if whole is not part else None

    def _update(self) -> None:
        name, count = self._config.optimizer.name, sum(parameter.numel() for parameter in self._gradients.parts)
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
            self._judge(float(nn.utils.get_total_norm(self._gradients.of_micro_batches())))

    def _clip(self) -> float:
        """Scale the gradients down to the greatest norm allowed; returns the norm before, NaN in a step left out."""
        if self._fault is not None:
            return math.nan
        grad_norm = self._gradients.clip(self._config.max_grad_norm or float("inf"))
        self._judge(grad_norm)
        if self._world.size > 1 and self._fault is not None:
            # The sum over processes overflowed, in all of them alike.
            self._decide()
        return grad_norm

    def _judge(self, grad_norm: float) -> None:
        if self._fault is None and not math.isfinite(grad_norm):
            self._clear()
            self._refuse("gradient", grad_norm, self._unchecked or ())
        self._unchecked = None

    def _clear(self) -> None:
        self._optimizer.zero_grad()
        self._gradients.clear()

    def _refuse(self, what: str, value: float, sources: Sequence[Source]) -> None:
        """Stop the run, or remember that this step is to be left out; several processes decide it together."""
        self._fault = Fault(self._num_micro_batches, what, value, sources)
        if self._world.size == 1:
            self._decide()

    def _share_fault(self) -> None:
        """Find the first fault that any process has met, and decide alike in all of them."""
        faults = [fault for fault in self._world.gather(self._fault) if fault is not None]
        if not faults:
            return
        first = min(faults, key=lambda fault: (fault.micro_batch, fault.what != "loss"))
        alike = [fault for fault in faults if (fault.micro_batch, fault.what) == (first.micro_batch, first.what)]
        self._fault = replace(first, sources=[source for fault in alike for source in fault.sources])
        self._clear()
        self._decide()

    def _decide(self) -> None:
        """Raise unless such steps are to be left out."""
        assert self._fault is not None
        met, self._fault = self._fault, None
        fault = met.describe(self.num_updates + 1)
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
        self._fault = met
