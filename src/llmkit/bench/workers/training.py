"""`llmkit train` itself, step by step."""

import os
import runpy
import sys
from pathlib import Path
from typing import Any

from llmkit.bench.peers.stepping import Stepper
from llmkit.bench.workers import training_steps


def train(settings: dict[str, Any], stepper: Stepper) -> None:
    """Run the command for as long as steps are asked for; a tracker stands at the end of each.

    Args:
        settings: `algorithm`, and `config`, a file with the settings of the run.
    """
    import llmkit.models.policy  # noqa: F401 - torch and transformers, before memory and time are measured

    training_steps.running = stepper
    stepper.begin()
    # A benchmark may start the same training again and again.
    runs = Path(settings["directory"]) / "runs" / f"{settings['contender']}-{os.getpid()}"
    sys.argv = ["llmkit", "train", settings["algorithm"], "--config", settings["config"], "--output-dir", str(runs)]
    runpy.run_module("llmkit", run_name="__main__")


if __name__ == "__main__":
    running = Stepper()
    running.run(lambda settings: train(settings, running))
