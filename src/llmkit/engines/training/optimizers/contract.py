"""What optimizer plugins promise: they make weights of gradients. `build(config, groups) -> Optimizer` makes one.

A plugin with `WORKS_ON_PARTS = True` promises that a weight's update depends on its own gradient and state alone. Runs
that divide weights among processes give it parts of them; its state is then that of `torch.optim.Optimizer`, with
tensors of the shape of the part, and `step`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import nn

Role = Literal["matrix", "output", "embedding", "vector"]


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained alike.

    Attributes:
        role: `matrix` weights inside the model (of more than one dimension), `output` the output head that is no
            embedding as well, `embedding`, `vector` norms and biases.
        parameters: at least one.
        learning_rate: peak of the run's schedule.
        weight_decay: decoupled.
        learning_rate_ratio: how many times the run's learning rate these parameters get.
    """

    role: Role
    parameters: "Sequence[nn.Parameter]"
    learning_rate: float
    weight_decay: float
    learning_rate_ratio: float = 1.0

    def as_settings(self, **options: Any) -> dict[str, Any]:
        """The group as classes of `torch.optim` take it, with options of its own."""
        return {
            "params": list(self.parameters),
            "lr": self.learning_rate * self.learning_rate_ratio,
            "weight_decay": self.weight_decay,
            "learning_rate_ratio": self.learning_rate_ratio,
            **options,
        }


class Optimizer(Protocol):
    """Any `torch.optim.Optimizer`, or what does as one does.

    Settings are in `param_groups`, and what the steps have gathered is in the state: a resumed run keeps its own
    settings and takes the state.
    """

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """One dictionary per group with at least `params`, `lr`, which is set before every step, and the
        `learning_rate_ratio` that it is set with."""
        ...

    def step(self) -> Any:
        """Change the weights by their gradients; a parameter without a gradient stays as it is."""
        ...

    def zero_grad(self) -> None:
        """Forget the gradients."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on bit for bit: tensors, numbers, lists and dictionaries."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        ...


@runtime_checkable
class AveragingOptimizer(Protocol):
    """An optimizer whose weights to use are others than those that gradients are taken at."""

    def eval(self) -> None:
        """Put the weights to use into the model. Calling it twice is allowed."""
        ...

    def train(self) -> None:
        """Put back the weights to train, bit for bit; also after loading a state that was saved meanwhile."""
        ...
