"""What every training engine promises: gradients in, better weights out."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from llmkit.types import Source

if TYPE_CHECKING:
    from torch import Tensor

    from llmkit.models.policy import Policy


class UpdateHooks(Protocol):
    """What an adapter has to say about the optimizer's steps."""

    def learning_rate_ratio(self, name: str) -> float:
        """How many times the run's learning rate the parameter of this name gets."""
        ...

    def before_update(self, model: Any) -> None:
        """Called when a step's gradients are complete, before they are clipped; may add to them."""
        ...

    def after_update(self, model: Any, num_updates: int) -> None:
        """Called after an optimizer step while its gradients are still there."""
        ...


class TrainEngine(Protocol):
    """Owns the optimizer of a policy. Losses of the micro-batches of one step are summed, never averaged."""

    policy: "Policy"

    def backward(self, loss: "Tensor", sources: Sequence[Source] = ()) -> None:
        """Add a micro-batch's gradients.

        Args:
            loss: of the micro-batch.
            sources: where its rows came from, for `step` to name them when something is wrong with them.
        """
        ...

    def step(self) -> dict[str, float]:
        """One optimizer step with what was added since the last one; returns `grad_norm` and `learning_rate`.

        Raises:
            TrainingError: a loss or a gradient is not finite; names the rows of its micro-batch. The weights are as
                they were.
        """
        ...

    def evaluation_weights(self) -> AbstractContextManager[bool]:
        """Within it the policy has the weights to measure, an average where one is kept; yields whether they are others
        than those in training."""
        ...

    def checkpoint_weights(self) -> AbstractContextManager[None]:
        """Within it the policy has the weights that a checkpoint holds; `save` belongs here."""
        ...

    def save(self, directory: Path) -> None:
        """Write optimizer, schedule and random state."""
        ...

    def load(self, directory: Path) -> None:
        """Go on from what `save` wrote, bit for bit.

        Raises:
            CheckpointError: it cannot be read or belongs to another model or optimizer.
        """
        ...
