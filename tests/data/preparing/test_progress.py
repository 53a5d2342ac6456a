import pytest
from rich.console import Console

from llmkit.data.preparing import progress
from llmkit.data.preparing.progress import with_progress


class Clock:
    """Advances by the same time whenever it is read."""

    def __init__(self, step):
        self.now = 0.0
        self.step = step

    def __call__(self):
        self.now += self.step
        return self.now


def test_work_that_is_soon_done_shows_nothing(capsys):
    assert list(with_progress(range(10), 10, "Counting", clock=Clock(0.1))) == list(range(10))
    assert capsys.readouterr().err == ""


def test_longer_work_says_now_and_then_how_far_it_is(capsys):
    # The clock stands at 1 s at the start and at 1 + n s after the n-th item: lines are due after 2 s and 15 s later.
    assert list(with_progress(range(20), 20, "Counting", clock=Clock(1.0))) == list(range(20))
    assert capsys.readouterr().err.splitlines() == [
        "Counting: 2 of 20, 18 s left",
        "Counting: 17 of 20, 3.0 s left",
    ]


def test_items_come_one_at_a_time():
    taken = []

    def items():
        for number in range(3):
            taken.append(number)
            yield number

    counted = with_progress(items(), 3, "Counting")
    assert taken == []
    next(counted)
    assert taken == [0]


@pytest.mark.parametrize("how", ["closed", "exhausted"])
def test_a_terminal_has_a_bar_that_goes_away(monkeypatch, how, capsys):
    console = Console(force_terminal=True, record=True, width=80)
    monkeypatch.setattr(progress, "stderr_console", lambda: console)
    counted = with_progress(range(50), 50, "Counting", clock=Clock(1.0))
    for number in counted:
        if number == 10 and how == "closed":
            counted.close()
    shown = capsys.readouterr().out
    assert "Counting" in shown
    assert "/50" in shown
    assert shown.endswith("\x1b[?25h\r\x1b[1A\x1b[2K"), "the cursor is back and the line is empty"
