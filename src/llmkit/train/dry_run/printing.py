"""What a dry run shows: a sample with its mask, the estimate, and what would make the run smaller."""

from rich.table import Table
from rich.text import Text

from llmkit.formatting import format_bytes, format_number, format_seconds
from llmkit.terminal import note, stderr_console, visible, warn
from llmkit.train.dry_run.estimate import Estimate
from llmkit.train.inputs import Inputs
from llmkit.types import Sample

PARTS = {
    "process": "Python and libraries",
    "weight": "weights",
    "gradient": "gradients",
    "optimizer": "optimizer",
    "activation": "activations",
    "logit": "loss head",
    "kv_cache": "KV cache",
    "batch": "batch",
    "allocator": "buffers, gaps in the heap",
    "total": "at most at one time",
}
"""The parts of an estimate's memory, with their names for people."""


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
    """Print the figures as a table, then how far to trust them and what to change."""
    table = Table(title="Dry run: nothing was trained", title_justify="left", title_style="bold", show_header=False)
    table.add_column("")
    table.add_column("", justify="right")
    share = result.trainable_parameters / result.parameters
    table.add_row("parameters", format_number(result.parameters))
    table.add_row("of which train", f"{format_number(result.trainable_parameters)} ({share:.2%})")
    for name, label in PARTS.items():
        size = getattr(result, f"{name}_bytes")
        if size:
            table.add_row(f"memory: {label}", format_bytes(size))
    table.add_row("memory of the device", format_bytes(result.limit_bytes))
    table.add_row("steps", format_number(result.num_steps))
    table.add_row("tokens per step", format_number(result.tokens_per_step))
    about = "" if result.calibrated else ", at least"
    table.add_row(f"time of a step{about}", format_seconds(result.step_seconds))
    if result.evaluation_seconds:
        table.add_row("time of an evaluation", format_seconds(result.evaluation_seconds))
    table.add_row(f"time of all steps and evaluations{about}", format_seconds(result.training_seconds))
    stderr_console().print(table)
    if not result.calibrated:
        note(f"Calculated, not measured: {result.not_calibrated_because}")
    show_fit(result)


def show_fit(result: Estimate) -> None:
    """Say whether there is room, and what makes some."""
    needed = format_bytes(result.total_bytes)
    if not result.fits:
        warn(f"this run needs about {needed} and the device has {format_bytes(result.limit_bytes)}")
    elif result.total_bytes > result.free_bytes + result.process_bytes:
        warn(f"this run needs about {needed}, and other programs leave {format_bytes(result.free_bytes)} free now")
    for advice in result.advice:
        settings = " ".join(f"--set {setting}" for setting in advice.settings)
        note(f"  saves {format_bytes(advice.saves_bytes):>9}: {settings} ({advice.cost})")
