import io

import pytest
from rich.console import Console

from llmkit.testing.tracker import TrackerContract
from llmkit.trackers.progress import ProgressBar, ProgressLines, describe


class TestConsole(TrackerContract):
    name = "console"


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_a_line_has_the_figures_that_people_watch():
    costs = {"tokens_per_second": 1234.5, "peak_memory_bytes": 1_250_000_000}
    line = describe({"step": 3, "loss": 0.5, "reward_mean": 0.25, **costs, "grad_norm": 9.0})
    assert line == "loss 0.5  reward 0.25  1,234 tokens/s  1.2 GB"


def test_lines_come_every_few_seconds_and_for_the_last_step(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    lines = ProgressLines(100, every_seconds=10, clock=clock)
    for step in range(1, 101):
        lines.log({"step": step, "loss": 1.0})
        clock.seconds += 1.0
    lines.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    printed = captured.err.splitlines()
    assert [line.split()[1] for line in printed] == [f"{step}/100" for step in (*range(1, 100, 10), 100)]
    assert printed[1] == "step 11/100  loss 1  1 min 29 s left"
    assert printed[-1] == "step 100/100  loss 1"


def test_evaluations_are_always_printed(capsys: pytest.CaptureFixture[str]):
    lines = ProgressLines(None, every_seconds=1e9, clock=Clock())
    lines.log({"step": 0, "eval_accuracy": 0.25})
    lines.log({"step": 1, "loss": 1.0})
    lines.log({"step": 2, "loss": 1.0, "eval_accuracy": 0.5})
    assert capsys.readouterr().err == "step 0  eval accuracy 0.25\nstep 2  loss 1  eval accuracy 0.5\n"


def test_the_last_step_of_an_interrupted_run_is_printed_once(capsys: pytest.CaptureFixture[str]):
    lines = ProgressLines(None, every_seconds=1e9, clock=Clock())
    for step in (1, 2, 3):
        lines.log({"step": step})
    lines.close()
    assert capsys.readouterr().err == "step 1\nstep 3\n"


def test_the_time_left_of_a_resumed_run_counts_its_own_steps(capsys: pytest.CaptureFixture[str]):
    clock = Clock()
    lines = ProgressLines(100, every_seconds=0, clock=clock)
    lines.log({"step": 81})
    clock.seconds = 2.0
    lines.log({"step": 82})
    assert capsys.readouterr().err.splitlines()[1] == "step 82/100  36 s left"


def test_a_number_that_is_none_is_no_trouble():
    assert describe({"step": 1, "loss": float("nan")}) == "loss not a number"


def test_the_bar_shows_the_step_and_keeps_evaluations_above_it():
    screen = io.StringIO()
    bar = ProgressBar(100, Console(file=screen, force_terminal=True, width=100))
    bar.log({"step": 0, "eval_accuracy": 0.25})
    bar.log({"step": 50, "loss": 0.5})
    bar.close()
    shown = screen.getvalue()
    assert "step 0  eval accuracy 0.25" in shown
    assert "step 50/100" in shown
    assert "loss 0.5" in shown


def test_a_bar_without_steps_can_be_closed():
    screen = io.StringIO()
    ProgressBar(None, Console(file=screen, force_terminal=True)).close()
    assert "step" not in screen.getvalue()
