"""Weights & Biases, online or offline."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from llmkit.config.section import Secret, Section

if TYPE_CHECKING:
    from llmkit.trackers.contract import Tracker

EXTRA = "wandb"


class Config(Section):
    """Where the run appears."""

    project: str = "llmkit"
    """Project that the run belongs to."""
    entity: str | None = None
    """User or team; unset takes the account's default."""
    run_name: str | None = None
    """Name shown for the run; unset takes the run directory's."""
    mode: Literal["online", "offline"] | None = None
    """`offline` writes into the run directory, for `wandb sync` to upload later; unset: `WANDB_MODE`, or online."""
    api_key: Secret | None = None
    """Key of the account; unset takes `WANDB_API_KEY` or the key stored by `wandb login`."""


def build(config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> Tracker:
    """Begin a run, or go on with the one that this run directory began.

    Raises:
        PluginError: the package wandb is not installed, or the service cannot be reached or refuses the key.
    """
    from llmkit.trackers.wandb_run import WandbTracker

    return WandbTracker(config, run_dir, resolved, resumed)
