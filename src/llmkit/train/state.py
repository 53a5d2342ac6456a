"""Where a run stands beside its weights and optimizer: step and position in the data, as JSON."""

import json
from pathlib import Path
from typing import Any

from llmkit.errors import CheckpointError

STATE_FILE = "state.json"


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
