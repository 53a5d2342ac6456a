import pytest

from llmkit.config.schema import OptimConfig
from llmkit.engines.training.schedule import learning_rate


def rates(total: int, **settings: object) -> list[float]:
    config = OptimConfig.model_validate({"learning_rate": 1.0, **settings})
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
