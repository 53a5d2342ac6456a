"""What trainers are measured at: which model, which rows, which settings, on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from llmkit.bench.training_material import Shape

SMALL, MIDDLE, WIDE = Shape(256, 5, 4096), Shape(512, 16, 16_384), Shape(256, 5, 151_936)
LEARNING_RATE = 1e-4


@dataclass(frozen=True)
class TRL:
    """One way to set TRL up.

    Attributes:
        micro_batch: rows per forward pass.
        bf16: autocast.
        dtype: of the weights.
        options: of TRL's configuration.
    """

    micro_batch: int
    bf16: bool = False
    dtype: str = "float32"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Something to measure.

    Attributes:
        name: what `--only` takes.
        algorithm: of `llmkit train`.
        shape: of the model.
        prompt, answer: tokens of each, on average.
        rows_per_step: rows, pairs or completions per optimizer step.
        ours: settings of the run beside those that all have.
        trl: the ways to set TRL up; the best one counts.
        group_size: completions to a prompt.
        scripted: whether completions are given instead of sampled.
        tolerance: greatest relative difference of a step's losses that is taken for the same training; None where the
            samples differ, so that losses do too.
    """

    name: str
    algorithm: Literal["sft", "dpo", "grpo"]
    shape: Shape
    prompt: int
    answer: int
    rows_per_step: int
    ours: Mapping[str, Any]
    trl: Mapping[str, TRL]
    group_size: int = 1
    scripted: bool = False
    tolerance: float | None = 0.05

    @property
    def dtype(self) -> str:
        """What is computed in."""
        return self.ours.get("device.compute_dtype", "float32")


BF16 = {"device.compute_dtype": "bfloat16"}
FREE = {"padding_free": True}
"""Rows laid end to end, which is what TRL's packing gives the model too; the rows of a step stay the same."""


def _sft(micro_batch: int) -> dict[str, TRL]:
    return {
        "trl autocast": TRL(micro_batch, bf16=True, options=FREE),
        "trl bf16 weights": TRL(micro_batch, dtype="bfloat16", options=FREE),
        "trl padded": TRL(micro_batch, bf16=True),
    }


def _padded(micro_batch: int) -> dict[str, TRL]:
    return {
        "trl autocast": TRL(micro_batch, bf16=True),
        "trl bf16 weights": TRL(micro_batch, dtype="bfloat16"),
    }


def _paged(micro_batch: int) -> dict[str, TRL]:
    paged = {"use_transformers_continuous_batching": True}
    return {**_padded(micro_batch), "trl paged": TRL(micro_batch, dtype="bfloat16", options=paged)}


EXACT = {"trl": TRL(8, options=FREE)}

CASES = {
    case.name: case
    for case in (
        Case("sft-same-losses", "sft", SMALL, 40, 40, 4, {}, {"trl": TRL(4, options=FREE)}, tolerance=1e-4),
        Case("sft-5m", "sft", SMALL, 60, 60, 16, BF16, _sft(4)),
        Case("sft-5m-fp32", "sft", SMALL, 60, 60, 16, {}, EXACT, tolerance=1e-4),
        Case("sft-60m", "sft", MIDDLE, 60, 60, 8, BF16, _sft(4)),
        Case("sft-152k", "sft", WIDE, 60, 60, 8, BF16, _sft(4)),
        Case("dpo-5m", "dpo", SMALL, 100, 60, 8, BF16, _padded(4)),
        Case("dpo-60m", "dpo", MIDDLE, 100, 60, 4, BF16, _padded(4)),
        Case("grpo", "grpo", SMALL, 64, 64, 64, BF16, _paged(16), group_size=8, tolerance=None),
        Case("grpo-update", "grpo", SMALL, 256, 128, 32, BF16, _padded(8), group_size=8, scripted=True, tolerance=None),
    )
}
"""Every case by its name."""
