import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llmkit.config.optim import ScheduleConfig
from llmkit.engines.training.schedule import learning_rate


def rates(total: int, **settings: object) -> list[float]:
    config = ScheduleConfig.model_validate({"learning_rate": 1.0, **settings})
    return [learning_rate(step, config, total) for step in range(total)]


def test_linear_falls_to_zero_after_the_last_step():
    assert rates(4) == [1.0, 0.75, 0.5, 0.25]


def test_warmup_rises_and_the_peak_follows_it():
    assert rates(5, schedule="constant", warmup_steps=3) == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_cosine_is_half_way_down_in_the_middle():
    assert rates(4, schedule="cosine") == pytest.approx([1.0, 0.8535534, 0.5, 0.1464466])


def test_the_floor_is_a_share_of_the_peak():
    assert rates(2, min_learning_rate_ratio=0.5) == [1.0, 0.75]


def test_warmup_longer_than_the_run_only_rises():
    assert rates(2, warmup_steps=3) == [0.25, 0.5]


def test_warmup_may_be_a_share_of_the_steps_rounded_up():
    assert rates(10, schedule="constant", warmup_ratio=0.25) == rates(10, schedule="constant", warmup_steps=3)


def test_warmup_is_said_once():
    with pytest.raises(ValidationError, match=r"optim\.warmup_steps=3 and optim\.warmup_ratio=0\.1 both"):
        rates(10, warmup_steps=3, warmup_ratio=0.1)


def test_cosine_restarts_begin_again_in_longer_cycles():
    # cycles of 2 and 4 steps: 1 + cos(pi t / T) over 2
    half = math.sqrt(0.5) / 2
    expected = [1, 0.5, 1, 0.5 + half, 0.5, 0.5 - half, 1, 0.5 * (1 + math.cos(math.pi / 8))]
    assert rates(8, schedule="cosine_restarts", restart_steps=2, restart_growth=2) == pytest.approx(expected)


def test_cosine_restarts_without_growth_repeat():
    found = rates(9, schedule="cosine_restarts", restart_steps=3)
    assert found[:3] * 3 == pytest.approx(found)


def test_wsd_stays_and_falls_at_the_end():
    assert rates(10, schedule="wsd", decay_ratio=0.4) == pytest.approx([1] * 7 + [0.75, 0.5, 0.25])


def test_wsd_counts_its_share_after_warmup():
    assert rates(5, schedule="wsd", decay_ratio=0.5, warmup_steps=1) == pytest.approx([0.5, 1, 1, 1, 0.5])


def test_inverse_sqrt_halves_at_four_times_the_steps():
    assert rates(8, schedule="inverse_sqrt", warmup_steps=1) == pytest.approx(
        [0.5, *(math.sqrt(2 / (2 + step)) for step in range(7))]
    )
    assert rates(8, schedule="inverse_sqrt", warmup_steps=1)[7] == 0.5


SCHEDULES = ["constant", "linear", "cosine", "cosine_restarts", "wsd", "inverse_sqrt"]


@given(st.sampled_from(SCHEDULES), st.integers(1, 200), st.integers(0, 50), st.floats(0, 1))
def test_every_schedule_peaks_after_warmup_and_stays_between_floor_and_peak(
    schedule: str, total: int, warmup: int, floor: float
):
    found = rates(total, schedule=schedule, warmup_steps=warmup, min_learning_rate_ratio=floor, restart_steps=7)
    assert all(rate <= 1 for rate in found)
    assert all(rate >= floor - 1e-12 for rate in found[warmup:])
    assert found[warmup : warmup + 1] in ([], [1.0])


@given(st.sampled_from(["linear", "cosine", "wsd", "inverse_sqrt"]), st.integers(2, 100), st.integers(0, 20))
def test_only_restarts_rise_after_warmup(schedule: str, total: int, warmup: int):
    found = rates(total, schedule=schedule, warmup_steps=warmup)[warmup:]
    assert found == sorted(found, reverse=True)
