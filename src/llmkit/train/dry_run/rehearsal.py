"""A few real steps of a run before it starts, in a scratch directory that is gone afterwards."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Protocol

from llmkit.config.resolve import Resolved
from llmkit.models.policy import Policy, torch_device
from llmkit.train.dry_run.memory_meter import MemoryMeter, SavedActivations, tensor_bytes
from llmkit.train.dry_run.shapes import StepShapes
from llmkit.train.inputs import Inputs
from llmkit.train.invocation import Invocation
from llmkit.train.session import Session

SECONDS = 12.0
"""Time for the steps of a rehearsal; the first ones run however long they take."""
STEP_SECONDS = 8.0
"""Steps that take longer are rehearsed in part."""
LEAST_STEPS, MOST_STEPS = 4, 32
MOST_ITEMS = 32
"""Items that are enough to tell what a token adds to the memory."""
EVALUATION_SECONDS = 10.0
FIRST_ROWS = 16
"""Held-out rows that tell how long all of them would take."""


@dataclass(frozen=True)
class Cost:
    """What a rehearsed step took.

    Attributes:
        tokens: that went through the model for training.
        seconds: in all, with completions at the length that the run will sample.
        untried_tokens: tokens that completions side by side would have had beyond those sampled.
    """

    tokens: int
    seconds: float
    untried_tokens: int = 0


class Rehearsal(Protocol):
    """How a story does its steps."""

    def step(self, items: Sequence[Any]) -> Cost:
        """Take an optimizer step on these items."""
        ...

    def evaluate(self, items: Sequence[Any]) -> None:
        """Measure held-out items."""
        ...


Rehearse = Callable[[Session, Inputs], AbstractContextManager[Rehearsal]]


@dataclass
class Measured:
    """What a rehearsal found, in bytes and seconds.

    Attributes:
        process: in use before the model was loaded; 0 on a GPU.
        weights: of policy and reference model.
        gradients: of what trains.
        optimizer: what the optimizer and the average keep.
        activations_fixed: kept for the backward pass, whatever the number of tokens.
        activations_per_token: the same for each token.
        peak_per_token: what a token of a micro-batch adds to the peak, what is recomputed or passes by included.
        micro_tokens: tokens of the largest micro-batch that ran.
        untried_tokens: see `Cost`.
        peaks: memory in use at most until the end of each step.
        share: of a step's items that steps were rehearsed with.
        step_seconds: of a whole step.
        evaluation_seconds: of one evaluation; 0 without held-out rows.
    """

    process: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    activations_fixed: int = 0
    activations_per_token: float = 0.0
    peak_per_token: float = 0.0
    micro_tokens: int = 0
    untried_tokens: int = 0
    peaks: list[int] = field(default_factory=list)
    share: float = 1.0
    step_seconds: float = 0.0
    evaluation_seconds: float = 0.0


@dataclass(frozen=True)
class Updates:
    """Steps that are nothing but an update: fine-tuning and preference training."""

    session: Session
    update: Callable[..., dict[str, float]]
    measure: Callable[..., dict[str, float]]

    def step(self, items: Sequence[Any]) -> Cost:
        """Update on these samples or pairs."""
        started = time.perf_counter()
        metrics = self.update(self.session.engine, items, self.session.run)
        return Cost(int(metrics["num_tokens"]), time.perf_counter() - started)

    def evaluate(self, items: Sequence[Any]) -> None:
        """Measure held-out samples or pairs."""
        self.measure(self.session.policy, items, self.session.run)


def rehearse_updates(update: Callable[..., dict[str, float]], evaluate: Callable[..., dict[str, float]]) -> Rehearse:
    """The rehearsal of a story with these two functions."""

    @contextmanager
    def rehearse(session: Session, inputs: Inputs) -> Iterator[Updates]:
        yield Updates(session, update, evaluate)

    return rehearse


def rehearse_run(
    resolved: Resolved[Any], inputs: Inputs, shapes: StepShapes[Any], held_out: Sequence[Any], rehearse: Rehearse
) -> Measured:
    """Load the model, take a few steps as the run will, and measure; nothing of it is kept."""
    meter = MemoryMeter(torch_device(resolved.run.device))
    meter.reset()
    measured = Measured(process=meter.used())
    with tempfile.TemporaryDirectory(prefix="llmkit-dry-run-") as scratch:
        changes = {"output_dir": f"{scratch}/run", "trackers": (), "max_steps": shapes.total_steps}
        session = Session(
            replace(resolved, run=resolved.run.model_copy(update=changes)),
            Invocation("dry-run"),
            inputs,
            shapes,
            command=resolved.command,
            with_reference=getattr(resolved.run.algorithm, "needs_reference", False),
        )
        with session, rehearse(session, inputs) as rehearsal:
            _take_steps(session, rehearsal, shapes, held_out, meter, measured)
            _weigh(session, measured)
    return measured


def _take_steps(
    session: Session,
    rehearsal: Rehearsal,
    shapes: StepShapes[Any],
    held_out: Sequence[Any],
    meter: MemoryMeter,
    measured: Measured,
) -> None:
    limit = session.run.batch.tokens_per_micro_batch
    rehearsal.step(shapes.items[:1])
    one, activations = _count(session, rehearsal, shapes.items[:1])
    first_peak = meter.peak()
    if held_out:
        measured.evaluation_seconds = _evaluate(rehearsal, held_out)
    # Copies of weights are kept too, however few tokens there are.
    several = shapes.items[: max(2, min(int(limit / one.tokens / 2), int(1 / max(one.seconds, 1e-6)), MOST_ITEMS))]
    more, more_activations = _count(session, rehearsal, several)
    if more.tokens > one.tokens:
        measured.activations_per_token = max(0.0, (more_activations - activations) / (more.tokens - one.tokens))
    measured.activations_fixed = max(0, activations - int(measured.activations_per_token * one.tokens))
    each = max(1e-6, (more.seconds - one.seconds) / max(1, len(several) - 1))
    number = len(shapes.next_step())
    affordable = (STEP_SECONDS - one.seconds) / each
    measured.share = min(1.0, max(1.0, affordable) / number)
    costs: list[Cost] = []
    started = time.perf_counter()
    while len(costs) < LEAST_STEPS or (len(costs) < MOST_STEPS and time.perf_counter() - started < SECONDS):
        if session.interrupted:
            raise KeyboardInterrupt
        step = shapes.next_step()
        costs.append(rehearsal.step(step[: max(1, round(len(step) * measured.share))]))
        measured.peaks.append(meter.peak())
    measured.step_seconds = statistics.median(cost.seconds for cost in costs) / measured.share
    measured.micro_tokens = min(limit, max(cost.tokens for cost in costs))
    rise = (measured.peaks[-1] - first_peak) / max(1, measured.micro_tokens - one.tokens)
    measured.peak_per_token = max(measured.activations_per_token, rise)
    measured.untried_tokens = min(cost.untried_tokens for cost in costs)


def _count(session: Session, rehearsal: Rehearsal, items: Sequence[Any]) -> tuple[Cost, int]:
    """What a step costs, and the bytes that its forward pass keeps."""
    saved = SavedActivations(session.policy.model)
    with saved.counting():
        cost = rehearsal.step(items)
    return cost, saved.num_bytes


def _evaluate(rehearsal: Rehearsal, held_out: Sequence[Any]) -> float:
    """Seconds of an evaluation; of a long one, some rows tell."""
    for rows in (held_out[:FIRST_ROWS], held_out):
        started = time.perf_counter()
        rehearsal.evaluate(rows)
        seconds = (time.perf_counter() - started) * len(held_out) / len(rows)
        if seconds > EVALUATION_SECONDS or len(rows) == len(held_out):
            return seconds
    raise AssertionError("the second round has all rows")


def _weigh(session: Session, measured: Measured) -> None:
    """Weigh what is there all the time."""
    policy: Policy = session.policy
    models = [policy.model, *([policy.reference] if policy.reference is not None else [])]
    measured.weights = tensor_bytes(chain.from_iterable([*m.parameters(), *m.buffers()] for m in models))
    measured.gradients = sum(p.nbytes for p in policy.model.parameters() if p.requires_grad)
    measured.optimizer = session.engine.state_bytes
