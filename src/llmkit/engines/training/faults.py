"""Losses and gradients that are no finite numbers: noted on the device, read once a step, and told with their rows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from llmkit.config.optim import OptimConfig
from llmkit.distributed.world import World
from llmkit.errors import TrainingError
from llmkit.formatting import listed
from llmkit.models.scalars import read_scalars
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


class MicroBatches:
    """What the micro-batches of a step have come to, on the device until it is asked for.

    Gradients add up, and what is not finite stays so: the first micro-batch after which the norm is not finite is the
    one at fault.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._sources: list[Sequence[Source]] = []

    def __len__(self) -> int:
        return len(self._losses)

    def note_gradients(self, gradients: Sequence[Tensor]) -> None:
        """What has been gathered before another micro-batch adds to it; nothing before the first one."""
        if len(self._norms) < len(self._losses):
            self._norms.append(nn.utils.get_total_norm(gradients))

    def note_loss(self, loss: Tensor, sources: Sequence[Source]) -> None:
        """A micro-batch's loss and rows."""
        self._losses.append(loss.detach())
        self._sources.append(sources)

    def judge(self, last_norm: Tensor) -> tuple[float, Fault | None]:
        """Read everything at once.

        Args:
            last_norm: of the gradient after the last micro-batch; 0 when there was none.
        Returns: that norm, and the first fault.
        """
        values = read_scalars([*self._losses, *self._norms, last_norm])
        losses, norms = values[: len(self)], values[len(self) :]
        for number, (sources, loss, norm) in enumerate(zip(self._sources, losses, norms, strict=False), start=1):
            for what, value in (("loss", loss), ("gradient", norm)):
                if not math.isfinite(value):
                    return norms[-1], Fault(number, what, value, sources)
        return norms[-1], None

    def clear(self) -> None:
        """Begin another step."""
        self._losses, self._norms, self._sources = [], [], []


def first_of(faults: Sequence[Fault | None]) -> Fault | None:
    """The first fault that any process has met, with the rows of all that have met the same."""
    met = [fault for fault in faults if fault is not None]
    if not met:
        return None
    first = min(met, key=lambda fault: (fault.micro_batch, fault.what != "loss"))
    alike = [fault for fault in met if (fault.micro_batch, fault.what) == (first.micro_batch, first.what)]
    return replace(first, sources=[source for fault in alike for source in fault.sources])


def shared(fault: Fault | None, world: World) -> Fault | None:
    """The first fault of all processes; each has to ask."""
    return fault if world.size == 1 else first_of(world.gather(fault))


def check_may_skip(fault: Fault, step: int, num_skipped: int, config: OptimConfig) -> None:
    """Raise unless steps with such a fault are to be left out.

    Args:
        step: optimizer step, from 1.
        num_skipped: steps that were left out before.

    Raises:
        TrainingError: names the rows, and what to do.
    """
    text = fault.describe(step)
    if config.on_nonfinite == "raise":
        raise TrainingError(
            f"{text}. Look at these rows; a lower optim.learning_rate or device.compute_dtype=float32 usually "
            "helps, and optim.on_nonfinite=skip leaves such steps out"
        )
    if num_skipped >= config.max_skipped_steps:
        raise TrainingError(
            f"{text}. It is one more than optim.max_skipped_steps={config.max_skipped_steps}; a lower "
            "optim.learning_rate or device.compute_dtype=float32 usually helps"
        )
