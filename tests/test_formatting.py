import pytest

from llmkit.formatting import format_bytes, format_number, format_seconds


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.42134, "0.4213"), (12.345, "12.35"), (1234.5, "1,234"), (1234567, "1,234,567"), (3.0, "3"), (1e-5, "1e-05"),
     (0, "0"), (-0.5, "-0.5"), (float("nan"), "not a number"), (float("inf"), "infinite"),
     (float("-inf"), "-infinite")],
)  # fmt: skip
def test_numbers(value: float, text: str):
    assert format_number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0.0 s"), (9.94, "9.9 s"), (42.4, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7440, "2 h 04 min")],
)
def test_durations(seconds: float, text: str):
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [(0, "0 B"), (512, "512 B"), (999, "999 B"), (1000, "1.0 kB"), (999_960, "1.0 MB"), (1_230_000_000, "1.2 GB")],
)
def test_sizes(num_bytes: float, text: str):
    assert format_bytes(num_bytes) == text
