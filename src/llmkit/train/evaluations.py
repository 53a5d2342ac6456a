"""The evaluations of a run so far: which was best, and whether they still improve."""

import math
from collections.abc import Mapping
from typing import Any

from llmkit import plugins
from llmkit.config.schema import CheckpointConfig, EvalConfig
from llmkit.config.watching import Direction, direction, watched_metric
from llmkit.errors import ConfigError


class Evaluations:
    """Follows one metric; of a run that watches none, it never finds anything.

    Attributes:
        metric: the metric; None watches none.
        best: its best value so far; None before the first evaluation of a trained model.
        best_step: the step of it, 0 without one.
        num_worse: evaluations since the last improvement by at least `min_delta`.
    """

    def __init__(self, checkpoint: CheckpointConfig, evaluation: EvalConfig) -> None:
        self.metric = watched_metric(checkpoint, evaluation)
        self.keeps_best = checkpoint.best_metric is not None
        self.best: float | None = None
        self.best_step = 0
        self.num_worse = 0
        self._reference: float | None = None
        self._patience, self._min_delta = evaluation.patience, evaluation.min_delta
        self._direction: Direction = direction(self.metric, checkpoint.best_mode) if self.metric else "min"

    def check(self, measured: Mapping[str, Any]) -> None:
        """Refuse to watch a metric that the first evaluation does not have.

        Raises:
            ConfigError: it names those that there are.
        """
        names = [name for name in measured if name.startswith("eval_")]
        if self.metric is not None and self.metric not in measured:
            raise ConfigError(
                f"checkpoint.best_metric={self.metric}: evaluations of this run measure {', '.join(names)}."
                f"{plugins.suggestion(self.metric, names)}"
            )

    def see(self, step: int, metrics: Mapping[str, Any]) -> bool:
        """Take in a step's metrics; returns whether the watched one is better than ever.

        A value that is no finite number is no improvement, and uses up patience.
        """
        if self.metric is None or self.metric not in metrics:
            return False
        value = float(metrics[self.metric])
        if self._is_better(value, self._reference, self._min_delta):
            self._reference, self.num_worse = value, 0
        else:
            self.num_worse += 1
        if not self._is_better(value, self.best, 0.0):
            return False
        self.best, self.best_step = value, step
        return True

    @property
    def is_exhausted(self) -> bool:
        """Whether the run should stop: `eval.patience` evaluations in a row were no improvement."""
        return bool(self._patience) and self.num_worse >= self._patience

    def state_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {
            "metric": self.metric,
            "best": self.best,
            "best_step": self.best_step,
            "num_worse": self.num_worse,
            "reference": self._reference,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave; from nothing when it watched another metric."""
        if state["metric"] == self.metric:
            self.best, self.best_step = state["best"], state["best_step"]
            self.num_worse, self._reference = state["num_worse"], state["reference"]

    def describe_stop(self, step: int) -> str:
        """Why the run has stopped before its last step, in words."""
        return (
            f"stopped early after step {step}: {self.metric} has not improved for {self.num_worse} evaluations; "
            f"the best was {self.best}, after step {self.best_step}"
        )

    def _is_better(self, value: float, former: float | None, by: float) -> bool:
        """Whether `value` is beyond `former` by more than `by`."""
        if not math.isfinite(value):
            return False
        if former is None:
            return True
        gain = former - value if self._direction == "min" else value - former
        return gain > by
