"""Whether trainer and engine agree about what was sampled: measured at every step, with an alarm."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from llmkit.algorithms.mismatch import mismatch
from llmkit.config.algorithms import GRPOConfig
from llmkit.distributed.world import world
from llmkit.errors import TrainingError
from llmkit.formatting import format_number
from llmkit.terminal import warn

MAX_WARNINGS = 5
"""Alarms that are told of; later ones show in the metrics alone."""


class Comparison:
    """The log-probabilities of a step's tokens, by the trainer and by the engine, from all of its micro-batches."""

    def __init__(self) -> None:
        self._parts: list[Tensor] = []

    def add(self, logprobs: Tensor, sampler_logprobs: Tensor) -> None:
        """Take in [N] tokens; they stay on their device until they are asked for."""
        self._parts.append(torch.stack([logprobs.detach().float(), sampler_logprobs.detach().float()]))

    def metrics(self) -> dict[str, float]:
        """Figures over the tokens of all processes, which all take part; none where there are no tokens."""
        own = torch.cat([torch.zeros(2, 0), *(part.cpu() for part in self._parts)], dim=1)
        logprobs, sampler_logprobs = torch.cat(world().gather_shares(own), dim=1)
        return mismatch(logprobs, sampler_logprobs) if len(logprobs) else {}


class MismatchAlarm:
    """Rings when they disagree more than the run allows."""

    def __init__(self, algorithm: GRPOConfig, engine: str) -> None:
        """
        Args:
            engine: its name, for messages.
        """
        self._config, self._correction, self._engine = algorithm.mismatch, algorithm.correction.action, engine
        self._num_alarms = 0

    def check(self, step: int, metrics: Mapping[str, float]) -> None:
        """Look at a step's figures before its weights change.

        Raises:
            TrainingError: they are above a threshold, and the run is to stop then.
        """
        passed = [
            f"{name} is {format_number(metrics[name])} (allowed: {format_number(limit)}, algorithm.mismatch.{setting})"
            for name, setting, limit in (
                ("logprob_mismatch_kl", "max_kl", self._config.max_kl),
                ("logprob_mismatch_abs_p_max", "max_abs_p", self._config.max_abs_p),
            )
            # A number that is none is above everything.
            if limit is not None and name in metrics and not metrics[name] <= limit
        ]
        if not passed:
            return
        message = (
            f"step {step}: the trainer and engine '{self._engine}' disagree about the sampled tokens: "
            f"{' and '.join(passed)}. {self._advice(metrics)}"
        )
        if self._config.on_alarm == "stop":
            raise TrainingError(message)
        self._num_alarms += 1
        if self._num_alarms <= MAX_WARNINGS:
            rest = ". Further alarms show in metrics.jsonl alone" if self._num_alarms == MAX_WARNINGS else ""
            warn(message + rest)

    def _advice(self, metrics: Mapping[str, float]) -> str:
        if not math.isfinite(metrics["logprob_mismatch_k1"]):
            return "The engine gave log-probabilities that are no finite numbers; nothing can be learned from them"
        causes = "different precision (device.compute_dtype, the engine's dtype) or weights that did not arrive"
        if self._correction == "none":
            return (
                f"Usual causes are {causes}; algorithm.correction.action=truncate weighs each token for it, and is off"
            )
        return (
            f"algorithm.correction.action={self._correction} makes up for it within bounds; usual causes are {causes}"
        )
