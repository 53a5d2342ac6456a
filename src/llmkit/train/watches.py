"""What a run keeps an eye on while it trains: evaluations, and losses that jump."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmkit.config.runs import TrainingRun
from llmkit.config.schema import EvalConfig
from llmkit.errors import CheckpointError
from llmkit.train.evaluations import Evaluations
from llmkit.train.spikes import SpikeWatch

SPIKES = "spikes.jsonl"


class Watches:
    """Both, saved and restored together.

    Attributes:
        evaluations: which was best, and whether they still improve.
        spikes: losses that jumped.
    """

    def __init__(self, run: TrainingRun, evaluation: EvalConfig, directory: Path, *, is_main: bool = True) -> None:
        """
        Args:
            evaluation: how the run measures itself.
            directory: of the run.
            is_main: whether this process writes spikes down; the others of a parallel run do not look for them.
        """
        self.evaluations = Evaluations(run.checkpoint, evaluation)
        self.spikes = SpikeWatch(
            directory / SPIKES if is_main else None, run.optim.spike_factor, run.optim.spike_window
        )

    def state_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {"evaluations": self.evaluations.state_dict(), "spikes": self.spikes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], step: int) -> None:
        """Go on after `step` from what `state_dict` gave.

        Raises:
            CheckpointError: the run had stopped early.
        """
        self.evaluations.load_state_dict(state["evaluations"])
        self.spikes.load_state_dict(state["spikes"], step)
        if self.evaluations.is_exhausted:
            raise CheckpointError(f"{self.evaluations.describe_stop(step)}; raise eval.patience to go on")
