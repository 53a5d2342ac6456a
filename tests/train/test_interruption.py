import os
import signal
import threading

import pytest

from llmkit.errors import LLMKitError, RunInterrupted
from llmkit.runs import run_directory
from llmkit.train.interruption import Interruption


class Clock:
    """Seconds that pass only when told."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_only_sets_the_flag_and_says_so(number: signal.Signals, capfd: pytest.CaptureFixture[str]):
    with Interruption() as interrupted:
        assert not interrupted
        send(number)
        assert interrupted
    captured = capfd.readouterr()
    assert f"{number.name}: finishing this step" in captured.err
    assert captured.out == ""


def test_a_second_ctrl_c_stops_at_once():
    clock = Clock()
    with Interruption(clock) as interrupted:
        send(signal.SIGINT)
        clock.seconds = 1.0
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        assert interrupted


def test_one_ctrl_c_delivered_twice_counts_once():
    with Interruption(Clock()) as interrupted:
        send(signal.SIGINT)
        send(signal.SIGINT)
        assert interrupted


def test_repeated_sigterm_still_lets_the_step_finish():
    clock = Clock()
    with Interruption(clock) as interrupted:
        send(signal.SIGTERM)
        clock.seconds = 60.0
        send(signal.SIGTERM)
        assert interrupted


def test_handlers_come_back():
    former = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != former[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == former


def test_outside_the_main_thread_nothing_is_touched():
    former = signal.getsignal(signal.SIGINT)
    seen: list[object] = []

    def work() -> None:
        with Interruption() as interrupted:
            seen.append((bool(interrupted), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, former)]


def test_the_exception_says_how_to_go_on_and_is_no_error(tmp_path):
    with run_directory.open("train/grpo", output_dir=tmp_path / "my run") as directory:
        error = Interruption().stop(12, directory)
    assert isinstance(error, RunInterrupted)
    assert not isinstance(error, LLMKitError)
    assert error.exit_code == 130
    assert "after step 12" in str(error)
    assert f"llmkit train grpo --resume --output-dir '{tmp_path}/my run'" in str(error)
