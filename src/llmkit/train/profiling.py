"""`--profile`: where the time of a few steps goes, as a trace and as a table."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from llmkit.disk import write_text, writing
from llmkit.formatting import format_bytes
from llmkit.terminal import note

if TYPE_CHECKING:
    from torch.autograd.profiler_util import EventList
    from torch.profiler import ProfilerAction, profile

WAIT, WARM_UP = 1, 1
"""Steps before the first one that is recorded: kernels are made in the first, the profiler starts in the second."""
ROWS = 25
"""Operations in the table."""


class StepProfiler:
    """Records some of a run's steps into `profile/` of its directory.

    trace.json.gz   for https://ui.perfetto.dev or chrome://tracing
    summary.txt     the dearest operations
    """

    def __init__(self, directory: Path, num_steps: int, steps_to_come: int) -> None:
        """
        Args:
            directory: of the run.
            num_steps: to record.
            steps_to_come: of the run; a short one is recorded without waiting.
        """
        from torch.profiler import ProfilerActivity, profile, supported_activities

        self._directory = directory / "profile"
        skipped = WAIT + WARM_UP if steps_to_come > WAIT + WARM_UP else 0
        self._num_steps = min(num_steps, steps_to_come - skipped)
        known = {ProfilerActivity.CPU, ProfilerActivity.CUDA, ProfilerActivity.XPU}
        self._profile = profile(
            activities=known & supported_activities(),
            schedule=partial(_action, skipped=skipped, active=self._num_steps),
            on_trace_ready=self._write,
            record_shapes=True,
            profile_memory=True,
            acc_events=True,
        )

    def start(self) -> None:
        """Begin with the next step."""
        self._profile.start()

    def step(self) -> None:
        """A step is done."""
        self._profile.step()

    def stop(self) -> None:
        """Write what there is, when the run ends before all steps are recorded."""
        self._profile.stop()

    def _write(self, recorded: "profile") -> None:
        """Write both files, and show the table.

        Raises:
            TrainingError: the disk is full.
        """
        table = dearest(recorded.key_averages())
        with writing(self._directory):
            self._directory.mkdir(exist_ok=True)
            recorded.export_chrome_trace(str(self._directory / "trace.json.gz"))
        write_text(self._directory / "summary.txt", f"{self._num_steps} steps\n{table}\n")
        place = self._directory / "trace.json.gz"
        note(f"Profile of {self._num_steps} steps, dearest operations first:\n{table}")
        note(f"{place}: open it in https://ui.perfetto.dev")


def _action(step: int, skipped: int, active: int) -> "ProfilerAction":
    """What the profiler does in a step, from 0. PyTorch's own schedules warn where nothing warms up."""
    from torch.profiler import ProfilerAction

    if skipped <= step < skipped + active:
        return ProfilerAction.RECORD_AND_SAVE if step == skipped + active - 1 else ProfilerAction.RECORD
    return ProfilerAction.WARMUP if step == skipped - 1 else ProfilerAction.NONE


def dearest(averages: "EventList", count: int = ROWS) -> str:
    """The operations that took the most time by themselves, on the accelerator where there was one: a line for each."""
    found = [average for average in averages if not average.is_user_annotation]
    on_device = any(average.self_device_time_total for average in found)
    time_of = attrgetter("self_device_time_total" if on_device else "self_cpu_time_total")
    total = sum(map(time_of, found)) or 1.0
    lines = [f"{'share':>6} {'time':>9} {'calls':>7} {'memory':>10}  operation"]
    for average in sorted(found, key=time_of, reverse=True)[:count]:
        memory = average.self_device_memory_usage if on_device else average.self_cpu_memory_usage
        taken = format_bytes(memory) if memory > 0 else ""
        milliseconds = f"{time_of(average) / 1000:,.1f} ms"
        share = f"{time_of(average) / total:.1%}"
        lines.append(f"{share:>6} {milliseconds:>9} {average.count:>7,} {taken:>10}  {average.key}")
    return "\n".join(lines)


@contextmanager
def profiling(directory: Path, num_steps: int, steps_to_come: int) -> Iterator[StepProfiler | None]:
    """Record `num_steps` steps within the block; 0 records none and costs nothing."""
    if not num_steps or steps_to_come < 1:
        yield None
        return
    profiler = StepProfiler(directory, num_steps, steps_to_come)
    profiler.start()
    try:
        yield profiler
    finally:
        profiler.stop()
