"""How far a run is, for people: a bar or lines."""

import sys
import time
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from llmkit.formatting import format_bytes, format_number, format_seconds
from llmkit.terminal import stderr_console

Metrics = Mapping[str, float | int | str]

SHOWN = {"loss": "loss", "reward_mean": "reward", "eval_loss": "eval loss", "eval_reward_mean": "eval reward",
         "eval_accuracy": "eval accuracy"}  # fmt: skip
"""The metrics that a line has room for, with their names there."""


def describe(metrics: Metrics) -> str:
    """The figures of a step that people watch: `loss 0.53  reward 0.41  1,234 tokens/s  1.2 GB`."""
    parts = [f"{label} {format_number(value)}" for name, label in SHOWN.items()
             if isinstance(value := metrics.get(name), (int, float))]  # fmt: skip
    speed = metrics.get("tokens_per_second")
    if isinstance(speed, (int, float)):
        parts.append(f"{format_number(round(speed))} tokens/s")
    memory = metrics.get("peak_memory_bytes")
    if isinstance(memory, (int, float)):
        parts.append(format_bytes(memory))
    return "  ".join(parts)


def is_evaluation(metrics: Metrics) -> bool:
    """Whether this step was evaluated."""
    return any(name.startswith("eval_") for name in metrics)


class ProgressLines:
    """One plain line every few seconds: for logs, pipes and batch systems."""

    def __init__(
        self,
        total_steps: int | None,
        every_seconds: float,
        clock: Callable[[], float] = time.monotonic,
        noun: str = "step",
    ) -> None:
        """
        Args:
            total_steps: None when it is not known.
            every_seconds: least time between two lines.
            clock: gives seconds.
            noun: what a step is called.
        """
        self._noun = noun
        self._total_steps = total_steps
        self._every_seconds = every_seconds
        self._clock = clock
        self._first: tuple[int, float] | None = None
        self._printed_at: float | None = None
        self._pending: Metrics | None = None

    def log(self, metrics: Metrics) -> None:
        """Print the step if a line is due."""
        now = self._clock()
        step = int(metrics["step"])
        self._first = self._first or (step, now)
        self._pending = metrics
        due = self._printed_at is None or now - self._printed_at >= self._every_seconds
        if due or is_evaluation(metrics) or step == self._total_steps:
            self._print(now)

    def close(self) -> None:
        """Print the last step if it was passed over."""
        if self._pending is not None:
            self._print(self._clock())

    def _print(self, now: float) -> None:
        assert self._pending is not None
        step = int(self._pending["step"])
        total = f"/{self._total_steps}" if self._total_steps is not None else ""
        parts = [f"{self._noun} {step}{total}", describe(self._pending), self._time_left(step, now)]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)
        self._printed_at, self._pending = now, None

    def _time_left(self, step: int, now: float) -> str:
        first_step, first_at = self._first or (step, now)
        if self._total_steps is None or step <= first_step or step >= self._total_steps:
            return ""
        return f"{format_seconds((now - first_at) / (step - first_step) * (self._total_steps - step))} left"


class ProgressBar:
    """A bar with the step, the figures that people watch and the time left; evaluations stay as lines above it."""

    def __init__(self, total_steps: int | None, console: Console | None = None, noun: str = "step") -> None:
        """
        Args:
            total_steps: None when it is not known.
            console: None is standard error.
            noun: what a step is called.
        """
        self._total_steps = total_steps
        self._noun = noun
        self._bar = Progress(
            TextColumn(noun + " {task.completed}" + (f"/{total_steps}" if total_steps is not None else "")),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}", markup=False),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console or stderr_console(),
            redirect_stdout=False,  # standard output belongs to `--json`
            refresh_per_second=4,
            speed_estimate_period=120,
        )
        self._task: TaskID | None = None

    def log(self, metrics: Metrics) -> None:
        """Move the bar."""
        step = int(metrics["step"])
        # What was evaluated has its own line; the bar keeps to one width.
        training_figures = describe({name: value for name, value in metrics.items() if not name.startswith("eval_")})
        if self._task is None:
            self._task = self._bar.add_task("", total=self._total_steps, completed=step, figures=training_figures)
            self._bar.start()
        if is_evaluation(metrics):
            self._bar.console.print(f"{self._noun} {step}  {describe(metrics)}", markup=False, highlight=False)
        self._bar.update(self._task, completed=step, figures=training_figures)

    def close(self) -> None:
        """Leave the bar as it is and give the terminal back."""
        self._bar.stop()


def open_progress(total_steps: int | None, every_seconds: float, noun: str = "step") -> ProgressBar | ProgressLines:
    """A bar when standard error is a terminal, lines otherwise.

    Args:
        total_steps: None when it is not known.
        every_seconds: least time between two lines.
        noun: what a step is called.
    """
    if sys.stderr.isatty():
        return ProgressBar(total_steps, noun=noun)
    return ProgressLines(total_steps, every_seconds, noun=noun)
