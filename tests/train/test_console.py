import pytest

from llmkit.terminal import note, visible, warn
from llmkit.train.console import print_samples, print_summary
from llmkit.train.summary import Summary
from llmkit.types import Message, Record, Rollout, Source


def make_rollout(completion: str, reward: float | None) -> Rollout:
    record = Record((Message("user", "q"),), Source("a", 1))
    return Rollout([1], [1], [0.0], [0], "stop", record, 0, "[b]What[/b] is 6 * 7?", completion, reward)


def test_notes_and_warnings_leave_standard_output_alone(capsys: pytest.CaptureFixture[str]):
    note("reading")
    warn("slow disk")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "reading\nwarning: slow disk\n"


def test_samples_are_shown_as_they_are_and_no_more_than_asked_for(capsys: pytest.CaptureFixture[str]):
    print_samples("Before", [make_rollout("[red]42", 1.0), make_rollout("41", 0.0), make_rollout("unseen", None)], 2)
    captured = capsys.readouterr()
    assert captured.out == ""
    for expected in ("Before", "[b]What[/b] is 6 * 7?", "[red]42", "reward 1", "reward 0"):
        assert expected in captured.err
    assert "unseen" not in captured.err


def test_a_sampled_control_character_cannot_reach_the_terminal(capsys: pytest.CaptureFixture[str]):
    assert visible("a\x1b[2Jb\tc\nd\r\x9b") == "a\\x1b[2Jb\tc\nd\\x0d\\x9b"
    print_samples("Before", [make_rollout("\x1b[2Jgone", 1.0)])
    assert "\x1b" not in capsys.readouterr().err


def test_the_closing_table_has_before_and_after_speed_and_time(capsys: pytest.CaptureFixture[str]):
    summary = Summary(
        num_steps=300, seconds=200.0, num_tokens=1_000_000, tokens_per_second=5000.4, peak_memory_bytes=903_000_000,
        before={"eval_accuracy": 0.44}, after={"eval_accuracy": 0.875, "eval_loss": 1.5},
        seconds_by_part={"generation": 150.0, "everything else": 50.0},
    )  # fmt: skip
    print_summary(summary, extra=[("report", "runs/a/report.html")])
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()

    def line(*words: str) -> bool:
        return any(all(word in text for word in words) for text in lines)

    assert line("held-out accuracy", "0.44", "0.875")
    assert line("held-out loss", "1.5")
    assert line("tokens per second", "5,000")
    assert line("peak memory", "903.0 MB")
    assert line("time in generation", "2 min 30 s", "75%")
    assert line("report", "runs/a/report.html")
