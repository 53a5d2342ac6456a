"""Metrics as a Weights & Biases run."""

import contextlib
import os
import secrets
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from llmkit.disk import write_text
from llmkit.errors import PluginError
from llmkit.trackers.wandb import Config

ID_FILE = "wandb-run-id.txt"


class WandbTracker:
    """Logs every metric by its own name, over `step`."""

    def __init__(self, config: Config, run_dir: Path, resolved: Mapping[str, Any], resumed: bool) -> None:
        """Begin a run, or go on with the one whose id is in the run directory.

        Raises:
            PluginError: the package wandb is not installed, or the service cannot be reached or refuses the key.
        """
        try:
            wandb = import_module("wandb")
        except ImportError as error:
            raise PluginError("Tracker 'wandb' needs the package wandb: pip install 'llmkit[wandb]'") from error
        offline = (config.mode or os.environ.get("WANDB_MODE")) == "offline"
        key = config.api_key.get_secret_value() if config.api_key is not None else None
        with contextlib.redirect_stdout(sys.stderr):  # standard output belongs to `--json`
            try:
                self._run = wandb.init(
                    project=config.project,
                    entity=config.entity,
                    name=config.run_name or run_dir.resolve().name,
                    id=run_identity(run_dir, resumed),
                    mode=config.mode,
                    dir=str(run_dir),
                    config=dict(resolved),
                    # What was written offline under one id becomes one run when it is synced.
                    resume="allow" if resumed and not offline else None,
                    settings=wandb.Settings(console="off", api_key=key) if key else wandb.Settings(console="off"),
                )
            except (wandb.Error, OSError) as error:
                raise PluginError(
                    f"Tracker 'wandb' cannot start: {error}. Log in with `wandb login`, set its api_key, "
                    "or choose its mode: offline"
                ) from error
        # A resumed run repeats steps, and wandb's own step may only rise.
        self._run.define_metric("*", step_metric="step")

    def log(self, metrics: Mapping[str, float | int | str]) -> None:
        """Add one step."""
        self._run.log(dict(metrics))

    def close(self) -> None:
        """Upload what is left and end."""
        with contextlib.redirect_stdout(sys.stderr):
            self._run.finish()


def run_identity(run_dir: Path, resumed: bool) -> str:
    """The id under which wandb knows this run: the stored one when it goes on, otherwise a new one, stored."""
    path = run_dir / ID_FILE
    if resumed and path.exists():
        return path.read_text(encoding="utf-8").strip()
    run_id = secrets.token_hex(8)
    write_text(path, run_id + "\n")
    return run_id
