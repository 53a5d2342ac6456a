"""`header.json`: what the rollouts beside it were made with, so that a run goes on as what it was."""

import json
from typing import Any

from llmkit.config.resolve import Resolved, semantic_differences
from llmkit.config.rollout import EXTENDABLE, RolloutRun
from llmkit.disk import write_text
from llmkit.errors import CheckpointError
from llmkit.rollout.prompts import PromptSource
from llmkit.runs.run_directory import RunDirectory

HARMLESS = (*EXTENDABLE, "device.")
"""Keys that may change when a run goes on."""
FORMAT = 1
"""Raised when lines of rollouts come to mean something else."""


def write_header(directory: RunDirectory, resolved: Resolved[RolloutRun], source: PromptSource) -> None:
    """Write down what the run is.

    Raises:
        TrainingError: the disk is full.
    """
    header = {"format": FORMAT, "command": "rollout", "rows": source.fingerprint, "config": resolved.masked()}
    write_text(directory.path / "header.json", json.dumps(header, indent=2, ensure_ascii=False) + "\n")


def check_same_run(directory: RunDirectory, resolved: Resolved[RolloutRun], source: PromptSource) -> None:
    """Refuse to add rollouts of other settings, or of other rows, to those that are there.

    Raises:
        CheckpointError: names the settings.
    """
    ledger = directory.path / "rollouts.jsonl"
    if not ledger.exists() or not ledger.stat().st_size:
        return
    header = _read(directory)
    found = semantic_differences(header["config"], resolved.masked(), type(resolved.run))
    changes = [change for change in found if not change[0].startswith(HARMLESS)]
    if changes:
        told = "; ".join(f"{key} was {old!r}, is {new!r}" for key, old, new in changes)
        raise CheckpointError(
            f"{ledger}: these rollouts were made with other settings: {told}. Resume with the old ones, or start a new "
            "run in another --output-dir"
        )
    if None not in (header["rows"], source.fingerprint) and header["rows"] != source.fingerprint:
        raise CheckpointError(
            f"{ledger}: the data set has other rows than when these rollouts were made; bring the old ones back, or "
            "start a new run in another --output-dir"
        )


def _read(directory: RunDirectory) -> dict[str, Any]:
    path = directory.path / "header.json"
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}), so nobody knows how the rollouts beside it were made; start a new run "
            "in another --output-dir"
        ) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT or "config" not in header:
        raise CheckpointError(
            f"{path}: is of another version of llmkit, or of another program; start a new run in another --output-dir"
        )
    return header
