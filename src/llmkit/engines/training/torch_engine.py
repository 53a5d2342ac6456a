"""Training with PyTorch: on one device, or in one of several processes that add up their gradients."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

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
    tensors_of,
)
from llmkit.engines.training.faults import Fault, MicroBatches, check_may_skip, shared
from llmkit.engines.training.optimizers.contract import AveragingOptimizer, Optimizer
from llmkit.engines.training.parameter_groups import parameter_groups
from llmkit.engines.training.random_state import get_random_state, set_random_state
from llmkit.engines.training.schedule import learning_rate
from llmkit.engines.training.weight_average import WeightAverage
from llmkit.errors import ConfigError
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
        self._micro_batches = MicroBatches()

    def backward(self, loss: Tensor, sources: Sequence[Source] = ()) -> None:
        """Add a micro-batch's gradients; whether they are finite is looked at by `step`."""
        self._micro_batches.note_gradients(self._gradients.of_micro_batches())
        self._micro_batches.note_loss(loss, sources)
        with during("backward", f"the backward pass of a micro-batch of {len(sources):,} sequences"):
            loss.backward()

    def step(self) -> dict[str, float]:
        """One optimizer step; the gradients are cleared."""
        rate = learning_rate(self.num_updates, self._config, self._total_steps)
        grad_norm, fault = self._finish_gradients()
        if fault is None:
            self._update(rate)
        self._clear()
        if fault is not None:
            check_may_skip(fault, self.num_updates + 1, self.num_skipped, self._config)
            self.skipped.append(fault.describe(self.num_updates + 1))
            self.num_skipped += 1
        self.num_updates += 1
        return {"grad_norm": grad_norm, "learning_rate": rate}

    @property
    def state_bytes(self) -> int:
        """Bytes that the optimizer and the average keep beside the weights."""
        tensors = [*tensors_of(self._optimizer.state_dict()), *(self._average.values if self._average else ())]
        return sum(tensor.nbytes for tensor in tensors)

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

    def _finish_gradients(self) -> tuple[float, Fault | None]:
        """Complete the gradients and scale them down to the greatest norm allowed.

        Returns: the norm before, NaN in a step that is to be left out, and why that is.
        """
        limit = self._config.max_grad_norm or math.inf
        if self._world.size > 1:
            # Once they are added up, nobody can tell whose they were.
            own = nn.utils.get_total_norm(self._gradients.of_micro_batches())
            fault = shared(self._micro_batches.judge(own)[1], self._world)
            if fault is not None:
                return math.nan, fault
        self._gradients.complete()
        if self._hooks:
            self._hooks.before_update(self.policy.model)
        norm = self._gradients.clip(limit)
        if self._world.size == 1:
            grad_norm, fault = self._micro_batches.judge(norm)
        else:
            # The sum over processes may overflow, in all of them alike.
            grad_norm = norm.item()
            fault = None if math.isfinite(grad_norm) else Fault(len(self._micro_batches), "gradient", grad_norm, ())
        return (grad_norm, None) if fault is None else (math.nan, fault)

    def _update(self, rate: float) -> None:
        """Change the weights, and the average of them."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate * group["learning_rate_ratio"]
        name, count = self._config.optimizer.name, sum(parameter.numel() for parameter in self._gradients.parts)
        try:
            with during("optimizer", f"the step of optim.optimizer={name} on {count:,} weights"):
                self._optimizer.step()
        except BaseException:
            # Some weights may have moved: they are no longer those of the last finished step.
            self.num_updates += 1
            raise
        if self._hooks:
            self._hooks.after_update(self.policy.model, self.num_updates + 1)
        if self._average:
            self._average.update(self.num_updates + 1)

    def _clear(self) -> None:
        self._optimizer.zero_grad()
        self._gradients.clear()
        self._micro_batches.clear()
