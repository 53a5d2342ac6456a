"""Where a run stands beside its weights and optimizer: step and position in the data, as JSON."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from llmkit.errors import CheckpointError

STATE_FILE = "state.json"


class Position(Protocol):
    """Something that knows where it stands in the data."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...

    def num_steps(self, num_epochs: float) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Mark:
    """Where the run stood when a step was finished.

    Attributes:
        step: the step.
        num_updates: of the optimizer until then; the weights are that step's as long as there are no more.
        position: in the data.
        random: states of the random number generators.
        watches: what evaluations and losses had come to.
    """

    step: int
    num_updates: int
    position: dict[str, Any]
    random: dict[str, Any]
    watches: dict[str, Any]


def write_state(directory: Path, state: dict[str, Any]) -> None:
    """Write `state` into a checkpoint's trainer directory."""
    (directory / STATE_FILE).write_text(json.dumps(state, indent=2))


def read_state(directory: Path) -> dict[str, Any]:
    """What `write_state` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    path = directory / STATE_FILE
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: this training state cannot be read: {error}") from error
