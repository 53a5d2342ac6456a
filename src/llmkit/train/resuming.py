"""Whether a checkpoint may be continued under the present settings."""

from typing import Any

from llmkit.config.resolve import Resolved, semantic_differences
from llmkit.errors import CheckpointError
from llmkit.terminal import warn
from llmkit.train.checkpoints import Checkpoint

IDENTITY = ("model", "adapter", "dataset", "formatter", "data", "seed", "batch")
"""Sections that decide what the saved weights and positions mean; another value makes another run."""


def check_same_run(checkpoint: Checkpoint, resolved: Resolved[Any]) -> None:
    """Refuse another model or other data; name every other setting that has changed.

    Raises:
        CheckpointError: the checkpoint belongs to another run.
    """
    if checkpoint.config_hash == resolved.semantic_hash():
        return
    changes = semantic_differences(checkpoint.config, resolved.masked(), type(resolved.run))
    refused = [change for change in changes if change[0].split(".")[0] in IDENTITY]
    if refused:
        raise CheckpointError(
            f"{checkpoint.path}: belongs to other settings: {_listed(refused)}. Resume with the old ones, or start a "
            "new run in another --output-dir"
        )
    if changes:
        warn(f"resuming under changed settings: {_listed(changes)}")


def _listed(changes: list[Any]) -> str:
    return "; ".join(f"{path} was {old!r}, is {new!r}" for path, old, new in changes)
