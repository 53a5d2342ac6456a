"""`--dry-run`: everything that can be known before training, and nothing trained."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from llmkit import plugins
from llmkit.config.resolve import Resolved
from llmkit.data.contract import Encoder
from llmkit.formatting import format_bytes
from llmkit.models.directory import has_weights
from llmkit.models.loading import BUILTIN, checkpoint_path
from llmkit.models.policy import torch_device
from llmkit.models.threads import bound_kernel_caches, set_threads
from llmkit.terminal import note
from llmkit.train.dry_run.analytic import Sizes, calculate
from llmkit.train.dry_run.estimate import Estimate, advise, limits, measured_parts, num_evaluations, total_of
from llmkit.train.dry_run.memory_meter import MemoryMeter, usual_rise
from llmkit.train.dry_run.printing import show_estimate, show_mask
from llmkit.train.dry_run.rehearsal import Measured, Rehearse, rehearse_run
from llmkit.train.dry_run.shapes import SAMPLED_ROWS, StepShapes
from llmkit.train.dry_run.workload import Item, length_of, sequences, workload
from llmkit.train.inputs import Inputs


def dry_run(resolved: Resolved[Any], inputs: Inputs, encoder: Encoder[Any], rehearse: Rehearse) -> dict[str, Any]:
    """Show a sample with its mask and what the run would need; returns the figures.

    Args:
        rehearse: how the story does its steps.
    """
    run = resolved.run
    for kind, section in (("engines", "engine"), ("workflows", "workflow"), ("rewards", "reward")):
        if hasattr(run, section):
            plugins.load(kind, getattr(run, section).name)
    for tracker in run.trackers:
        plugins.load("trackers", tracker.name)
    plugins.load("optimizers", run.optim.optimizer.name)
    first: Item = inputs.peek(encoder)
    note(str(inputs.template))
    completion_tokens = run.sampling.max_new_tokens if hasattr(run, "sampling") else 0
    for sample in sequences(first, inputs.codec):
        show_mask(inputs, sample, completion_tokens)
    result = estimate(resolved, inputs, encoder, rehearse)
    show_estimate(result)
    return {"dry_run": True, **result.to_dict()}


def estimate(resolved: Resolved[Any], inputs: Inputs, encoder: Encoder[Any], rehearse: Rehearse) -> Estimate:
    """Calculate, then rehearse what can be rehearsed here."""
    run = resolved.run
    device = torch_device(run.device)
    bound_kernel_caches()
    set_threads(run.device, device)
    items: list[Item] = inputs.sample(encoder, SAMPLED_ROWS)
    held_out = inputs.read_held_out(encoder, run.eval.max_rows)
    shapes = StepShapes(run, items, length_of(run, inputs.codec), inputs.num_rows)
    load = workload(run, shapes, inputs.codec, len(held_out))
    sizes = calculate(run, load, shapes.total_steps)
    meter = MemoryMeter(device)
    process = meter.used() if device.type != "cuda" else 0
    reason = why_not(run, process + sizes.parts.total, meter)
    if reason:
        parts, total, measured = sizes.parts, process + sizes.parts.total, None
    else:
        measured = rehearse_run(resolved, inputs, shapes, held_out, rehearse)
        parts, process = measured_parts(sizes, load, measured)
        rise = usual_rise(device, parts.activations + parts.logits, load.micro_tokens * sizes.hidden_size * 4)
        total = total_of(parts, load, measured, shapes.total_steps, rise)
        if not hasattr(run, "sampling"):
            total += parts.kv_cache  # answers to held-out questions are not rehearsed
    step, evaluation = times(run, sizes, shapes, measured)
    result = Estimate(
        parameters=sizes.parameters,
        trainable_parameters=sizes.trainable,
        process_bytes=process,
        weight_bytes=parts.weights,
        gradient_bytes=parts.gradients,
        optimizer_bytes=parts.optimizer,
        activation_bytes=parts.activations,
        logit_bytes=parts.logits,
        kv_cache_bytes=parts.kv_cache,
        batch_bytes=parts.batch,
        allocator_bytes=max(0, total - process - parts.total),
        total_bytes=total,
        calibrated=measured is not None,
        not_calibrated_because=reason,
        **limits(meter),
        num_steps=shapes.total_steps,
        tokens_per_step=int(shapes.mean_tokens),
        step_seconds=step,
        evaluation_seconds=evaluation,
        training_seconds=step * shapes.total_steps
        + evaluation * num_evaluations(run, shapes.total_steps, len(held_out)),
        advice=(),
    )
    if result.fits:
        return result
    return replace(result, advice=advise(resolved, inputs, items, len(held_out), result))


def why_not(run: Any, calculated_bytes: int, meter: MemoryMeter) -> str:
    """Why no step can be rehearsed; empty when one can."""
    path = checkpoint_path(run.model, needs_weights=False)
    name = run.model.path
    if not name.startswith(BUILTIN) and is_config_only(path):
        return f"model.path={name} has no weights"
    room = min(meter.limit(), meter.free() + meter.used())
    if calculated_bytes > room:
        return f"it would take about {format_bytes(calculated_bytes)}, and there is room for {format_bytes(room)} now"
    return ""


def times(run: Any, sizes: Sizes, shapes: StepShapes[Any], measured: Measured | None) -> tuple[float, float]:
    """Seconds of a step and of an evaluation; of what was not rehearsed, forward and backward passes alone."""
    if measured is not None:
        return measured.step_seconds, measured.evaluation_seconds
    return 6 * sizes.parameters * shapes.mean_tokens / matmul_rate(run.device), 0.0


@torch.no_grad()
def matmul_rate(config: Any, seconds: float = 0.3) -> float:
    """Floating-point operations per second of a square matrix product on the run's device, measured."""
    device = torch_device(config)
    dtype = getattr(torch, config.compute_dtype)
    size = 1024 if device.type == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    done, best, started = 0.0, float("inf"), time.perf_counter()
    while done < seconds:
        before = time.perf_counter()
        # Reading a value waits for the device to finish.
        (a @ b)[0, 0].item()
        best = min(best, time.perf_counter() - before)
        done = time.perf_counter() - started
    return 2 * size**3 / best


def is_config_only(path: str) -> bool:
    """Whether a local directory has a model's shapes and none of its weights."""
    return Path(path).is_dir() and not has_weights(Path(path))
