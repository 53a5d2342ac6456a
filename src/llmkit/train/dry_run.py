"""`--dry-run`: everything that can be known before training, and nothing trained."""

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from rich.table import Table
from rich.text import Text
from torch import nn

from llmkit import plugins
from llmkit.config.resolve import Resolved
from llmkit.errors import ConfigError
from llmkit.formatting import format_bytes, format_number, format_seconds
from llmkit.models.loading import load_on_meta
from llmkit.models.policy import torch_device
from llmkit.models.quantizing import weight_bytes
from llmkit.terminal import stderr_console
from llmkit.train.adapting import begin_adapter
from llmkit.train.console import note, visible
from llmkit.train.idle_settings import warn_of_idle_optim_settings
from llmkit.train.inputs import Inputs
from llmkit.types import Sample

ACTIVATION_VALUES = 17
"""Numbers kept per token, layer and hidden unit for the backward pass without attention scores: half of the 34 bytes
that arXiv:2205.05198, equation 2, counts at two bytes each."""


@dataclass(frozen=True)
class Estimate:
    """What a run will need, in bytes and seconds.

    Attributes:
        parameters: of the model, adapter included.
        trainable_parameters: those that train.
        weight_bytes: all weights, the reference model's copy included.
        gradient_bytes: of what trains.
        optimizer_bytes: AdamW's two moments.
        activation_bytes: of one micro-batch.
        logit_bytes: of one micro-batch's supervised positions, with their gradient.
        total_bytes: the sum.
        num_steps: optimizer steps.
        tokens_per_step: by the sample that was read.
        training_seconds: of forward and backward passes at this machine's measured rate; sampling is not in it.
    """

    parameters: int
    trainable_parameters: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    logit_bytes: int
    total_bytes: int
    num_steps: int
    tokens_per_step: int
    training_seconds: float


def dry_run(
    resolved: Resolved[Any],
    inputs: Inputs,
    samples: Sequence[Sample],
    *,
    rows_per_step: int,
    completion_tokens: int = 0,
) -> dict[str, Any]:
    """Show a sample with its mask and what the run would need; returns the figures.

    Args:
        samples: one row's sequences.
        rows_per_step: sequences per optimizer step.
        completion_tokens: tokens that will be sampled after each of them, at most.
    """
    run = resolved.run
    for kind, section in (("engines", "engine"), ("workflows", "workflow"), ("rewards", "reward")):
        if hasattr(run, section):
            plugins.load(kind, getattr(run, section).name)
    for tracker in run.trackers:
        plugins.load("trackers", tracker.name)
    plugins.load("optimizers", run.optim.optimizer.name)
    warn_of_idle_optim_settings(run.optim)
    result = estimate(run, inputs, samples, rows_per_step, completion_tokens)
    note(str(inputs.template))
    for sample in samples:
        show_mask(inputs, sample, completion_tokens)
    show_estimate(result)
    return {"dry_run": True, **asdict(result)}


def estimate(
    run: Any, inputs: Inputs, samples: Sequence[Sample], rows_per_step: int, completion_tokens: int
) -> Estimate:
    """Count and calculate; weights are never loaded."""
    model = load_on_meta(run.model)
    architecture = model.config.get_text_config()  # type: ignore[union-attr, operator] - a transformers model
    base_parameters = count(model)
    base_bytes = weight_bytes(model, run.model.quantization, next(model.parameters()).element_size())
    steps = planned_steps(run, inputs.num_rows)
    adapter = begin_adapter(run, steps, lambda count: [])  # a model without weights has no use for rows
    adapter.check(model)
    adapted = model.requires_grad_(False)
    if adapter.facts.sized_by_shapes:
        with torch.device("meta"):
            adapted = adapter.attach(model)
    else:
        note(f"adapter.name={run.adapter.name}: how much it trains is known with the weights alone; it is left out")
    parameters = count(adapted)
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    if not trainable and adapter.facts.sized_by_shapes:
        raise ConfigError(f"adapter.name={run.adapter.name}: nothing of this model would train")
    width = next(adapted.parameters()).element_size()
    per_row = sum(len(sample.token_ids) for sample in samples) / len(samples) + completion_tokens
    trained = sum(weight != 0 for sample in samples for weight in sample.loss_weights) / len(samples)
    supervised = (trained + completion_tokens) / per_row
    batch_tokens = min(run.batch.tokens_per_micro_batch, rows_per_step * per_row)
    compute_width = 2 if run.device.compute_dtype == "bfloat16" else width
    layers = 1 if run.device.gradient_checkpointing else architecture.num_hidden_layers
    activations = batch_tokens * ACTIVATION_VALUES * compute_width * architecture.hidden_size * layers
    if run.device.gradient_checkpointing:
        activations += batch_tokens * compute_width * architecture.hidden_size * architecture.num_hidden_layers
    copies = 2 if needs_reference(run) and not adapter.facts.keeps_base else 1
    parts = {
        "weight_bytes": base_bytes * copies + (parameters - base_parameters) * width,
        "gradient_bytes": trainable * width,
        "optimizer_bytes": trainable * width * 2,
        "activation_bytes": int(activations),
        "logit_bytes": int(batch_tokens * supervised * architecture.vocab_size * (4 + 4 + compute_width)),
    }
    tokens = int(per_row * rows_per_step)
    return Estimate(
        parameters=parameters,
        trainable_parameters=trainable,
        **parts,
        total_bytes=sum(parts.values()),
        num_steps=steps,
        tokens_per_step=tokens,
        training_seconds=steps * tokens * 6 * parameters / matmul_rate(run.device),
    )


def planned_steps(run: Any, num_rows: int | None) -> int:
    """Optimizer steps of a run, as far as the number of rows tells: packing and rows that are left out change it.

    Raises:
        ConfigError: a stream has no `max_steps`.
    """
    if run.max_steps is not None:
        return run.max_steps
    if num_rows is None:
        raise ConfigError("max_steps is not set, and a stream does not say how many rows it has; set --max-steps N")
    rows_per_step = getattr(run.batch, "rows_per_step", None) or run.batch.prompts_per_step
    return max(1, math.ceil(run.num_epochs * num_rows / rows_per_step))


def needs_reference(run: Any) -> bool:
    """Whether the policy is compared with the model that training began with."""
    return getattr(run.algorithm, "needs_reference", False)


def count(model: nn.Module) -> int:
    """Parameters of a model, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


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


def show_mask(inputs: Inputs, sample: Sample, completion_tokens: int) -> None:
    """Print a sample: trained tokens coloured on a terminal, between guillemets elsewhere."""
    console = stderr_console()
    text = Text()
    inside = False
    for piece, weight in zip(inputs.codec.pieces(sample.token_ids), sample.loss_weights, strict=True):
        if bool(weight) != inside and not console.is_terminal:
            text.append("»" if inside else "«")
        inside = bool(weight)
        text.append(visible(piece), style="bold green" if weight else "dim")
    if inside and not console.is_terminal:
        text.append("»")
    trained = sum(weight != 0 for weight in sample.loss_weights)
    count = len(sample.token_ids)
    what = f"{trained} of them trained (marked)"
    if completion_tokens:
        what = f"then up to {completion_tokens} sampled ones, which train"
    console.print(Text(f"{sample.source}: {count} tokens, {what}", style="bold"))
    console.print(text)


def show_estimate(result: Estimate) -> None:
    """Print the figures as a table."""
    table = Table(title="Dry run: nothing was trained", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    share = result.trainable_parameters / result.parameters
    table.add_row("parameters", format_number(result.parameters))
    table.add_row("of which train", f"{format_number(result.trainable_parameters)} ({share:.2%})")
    for name in ("weight", "gradient", "optimizer", "activation", "logit", "total"):
        table.add_row(f"memory: {name}s" if name != "total" else "memory: total", _bytes(result, name))
    table.add_row("steps", format_number(result.num_steps))
    table.add_row("tokens per step", format_number(result.tokens_per_step))
    table.add_row("training time, at least", format_seconds(result.training_seconds))
    stderr_console().print(table)


def _bytes(result: Estimate, name: str) -> str:
    return format_bytes(getattr(result, f"{name}_bytes"))
