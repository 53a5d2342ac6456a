"""What a run will need: calculated from shapes, and corrected by what a rehearsal measured."""

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from llmkit.config.resolve import Resolved, resolve
from llmkit.errors import LLMKitError
from llmkit.train.dry_run.analytic import Parts, Sizes, calculate
from llmkit.train.dry_run.memory_meter import MemoryMeter, settled_peak
from llmkit.train.dry_run.rehearsal import Measured
from llmkit.train.dry_run.shapes import StepShapes
from llmkit.train.dry_run.workload import Item, Workload, length_of, workload
from llmkit.train.inputs import Inputs
from llmkit.train.memory_settings import changes

LEAST_SAVING = 0.02
"""Savings of less than this share of the whole are not worth a line."""


@dataclass(frozen=True)
class Advice:
    """A change of settings, and how many bytes it would save."""

    settings: tuple[str, ...]
    saves_bytes: int
    cost: str


@dataclass(frozen=True)
class Estimate:
    """What a run will need, in bytes and seconds.

    Attributes:
        parameters: of the model, adapter included.
        trainable_parameters: those that train.
        process_bytes: Python, libraries and data, before the model; 0 on a GPU.
        weight_bytes: all weights, the reference model's copy included.
        gradient_bytes: of what trains.
        optimizer_bytes: what the optimizer and the average keep.
        activation_bytes: of the largest micro-batch.
        logit_bytes: of the loss head at work on it.
        kv_cache_bytes: of completions sampled side by side.
        batch_bytes: token ids and positions of the largest micro-batch.
        allocator_bytes: what was measured beyond all that: buffers, kernels, gaps in the heap.
        total_bytes: the most that is in use at one time.
        calibrated: whether real steps were measured; everything is calculated otherwise.
        not_calibrated_because: why not.
        limit_bytes: what the device, or the machine or container, has.
        free_bytes: what of it nobody uses now.
        num_steps: optimizer steps.
        tokens_per_step: on average; completions at their longest.
        step_seconds: of one step, sampling included.
        evaluation_seconds: of one evaluation.
        training_seconds: of all steps and evaluations; start-up and checkpoints are not in it.
        advice: what would make it smaller, when it does not fit.
    """

    parameters: int
    trainable_parameters: int
    process_bytes: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logit_bytes: int
    kv_cache_bytes: int
    batch_bytes: int
    allocator_bytes: int
    total_bytes: int
    calibrated: bool
    not_calibrated_because: str
    limit_bytes: int
    free_bytes: int
    num_steps: int
    tokens_per_step: int
    step_seconds: float
    evaluation_seconds: float
    training_seconds: float
    advice: tuple[Advice, ...]

    @property
    def fits(self) -> bool:
        """Whether the device has that much."""
        return self.total_bytes <= self.limit_bytes

    def to_dict(self) -> dict[str, Any]:
        """As plain values for JSON."""
        return {**asdict(self), "fits": self.fits}


def measured_parts(sizes: Sizes, load: Workload, measured: Measured) -> tuple[Parts, int]:
    """The parts as they were measured, and the most memory that a run will have in use at one time."""
    calculated = sizes.parts
    parts = Parts(
        weights=measured.weights,
        gradients=measured.gradients,
        optimizer=measured.optimizer,
        activations=measured.activations_fixed + int(measured.activations_per_token * load.micro_tokens),
        logits=calculated.logits,
        kv_cache=calculated.kv_cache,
        batch=calculated.batch,
    )
    return parts, measured.process


def total_of(parts: Parts, load: Workload, measured: Measured, num_steps: int, rise: float) -> int:
    """The peak of a long run: what was measured, and what the rehearsal was spared.

    Args:
        rise: of the peak for each doubling of the steps, as is usual.
    """
    untried = max(0, load.micro_tokens - measured.micro_tokens) if measured.share < 1 else 0
    missing = int(measured.peak_per_token * untried)
    if measured.untried_tokens:
        missing = max(missing, parts.kv_cache)
    return settled_peak(measured.peaks, num_steps, rise) + missing


def num_evaluations(run: Any, num_steps: int, num_held_out: int) -> int:
    """How often a run measures itself: at the start, every `eval.every_steps`, at the end."""
    if not num_held_out:
        return 0
    every = run.eval.every_steps
    return 2 + (num_steps - 1) // every if every else 2


def advise(
    resolved: Resolved[Any], inputs: Inputs, items: Sequence[Item], num_held_out: int, result: Estimate
) -> tuple[Advice, ...]:
    """What would make the run smaller and by how much, the greatest saving first.

    Each change is calculated in full, on the run as it would be; activations are scaled to what was measured.
    """
    found: list[Advice] = []
    before = _calculated(resolved, inputs, items, num_held_out)
    scale = result.activation_bytes / before.activations if before.activations else 1.0
    for change in changes(resolved.run):
        try:
            after = _calculated(changed(resolved, change.settings), inputs, items, num_held_out)
        except LLMKitError:
            continue  # what this run cannot do is no advice
        saved = _scaled(before, scale) - _scaled(after, scale)
        if saved > LEAST_SAVING * result.total_bytes:
            found.append(Advice(change.settings, saved, change.cost))
    return tuple(sorted(found, key=lambda advice: -advice.saves_bytes))


def changed(resolved: Resolved[Any], settings: Sequence[str]) -> Resolved[Any]:
    """The same run with other settings.

    Raises:
        LLMKitError: they do not go with the rest.
    """
    with tempfile.TemporaryDirectory(prefix="llmkit-dry-run-") as scratch:
        file = Path(scratch) / "run.yaml"
        file.write_text(resolved.to_yaml(), encoding="utf-8")
        return resolve(
            resolved.schema, command=resolved.command, files=[file], overrides=settings, environ={}, keep_masked=True
        )


def limits(meter: MemoryMeter) -> dict[str, int]:
    """What there is to fit into."""
    return {"limit_bytes": meter.limit(), "free_bytes": meter.free()}


def _calculated(resolved: Resolved[Any], inputs: Inputs, items: Sequence[Item], num_held_out: int) -> Parts:
    run = resolved.run
    shapes = StepShapes(run, items, length_of(run, inputs.codec), inputs.num_rows)
    return calculate(run, workload(run, shapes, inputs.codec, num_held_out), shapes.total_steps).parts


def _scaled(parts: Parts, scale: float) -> int:
    """The total, with activations as large as they were measured."""
    return parts.total + int(parts.activations * (scale - 1))
