"""Which checkpoint a run goes on from, and whether it may under the present settings."""

from pathlib import Path
from typing import Any

from llmkit.config.resolve import Resolved, semantic_differences
from llmkit.errors import CheckpointError
from llmkit.terminal import note, warn
from llmkit.train.checkpoints import Checkpoint, CheckpointStore

IDENTITY = ("model", "adapter", "dataset", "formatter", "data", "seed", "batch")
"""Sections that decide what the saved weights and positions mean; another value makes another run."""


def find_checkpoint(
    store: CheckpointStore, resolved: Resolved[Any], directory: Path, total_steps: int
) -> Checkpoint | None:
    """The newest checkpoint of a run that is resumed; None where there is none yet.

    Raises:
        CheckpointError: it belongs to another run, or there is nothing left to do.
    """
    checkpoint = store.latest()
    if checkpoint is None:
        note(f"{directory}: no checkpoint yet, so the run starts at the beginning")
        return None
    check_same_run(checkpoint, resolved)
    if checkpoint.step >= total_steps:
        raise CheckpointError(
            f"{checkpoint.path}: all {total_steps} steps of this run are done; raise max_steps to go on"
        )
    note(f"Resuming {directory} after step {checkpoint.step} of {total_steps}")
    return checkpoint


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
