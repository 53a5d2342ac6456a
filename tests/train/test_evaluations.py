import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmkit.config.schema import CheckpointConfig, EvalConfig, RolloutEvalConfig
from llmkit.config.watching import check_watching, direction
from llmkit.errors import ConfigError
from llmkit.train.evaluations import Evaluations


def follow(values: list[float], *, patience: int = 0, min_delta: float = 0.0, metric: str = "eval_loss") -> Evaluations:
    evaluations = make(patience, min_delta, metric)
    for step, value in enumerate(values, start=1):
        evaluations.see(step, {metric: value})
    return evaluations


def make(patience: int = 0, min_delta: float = 0.0, metric: str = "eval_loss") -> Evaluations:
    checkpoint = CheckpointConfig.model_validate({"best_metric": metric})
    return Evaluations(checkpoint, EvalConfig.model_validate({"patience": patience, "min_delta": min_delta}))


def test_the_best_loss_is_the_least_and_the_best_reward_the_greatest():
    assert (follow([3.0, 1.0, 2.0]).best, follow([3.0, 1.0, 2.0]).best_step) == (1.0, 2)
    rewards = follow([3.0, 1.0, 5.0], metric="eval_reward_mean")
    assert (rewards.best, rewards.best_step) == (5.0, 3)


def test_the_first_of_equals_stays_the_best():
    assert follow([1.0, 1.0]).best_step == 1


def test_patience_counts_evaluations_in_a_row():
    assert [follow([2.0, 3.0, 1.0, 2.0, 2.0][:count], patience=2).is_exhausted for count in range(1, 6)] == [
        False, False, False, False, True,
    ]  # fmt: skip


def test_less_than_min_delta_is_the_best_and_no_improvement():
    evaluations = follow([1.0, 0.9, 0.8], patience=2, min_delta=0.25)
    assert (evaluations.best, evaluations.num_worse, evaluations.is_exhausted) == (0.8, 2, True)
    # what small steps add up to counts
    assert not follow([1.0, 0.9, 0.7], patience=2, min_delta=0.25).is_exhausted


def test_a_value_that_is_no_number_uses_up_patience():
    evaluations = follow([math.nan, 2.0, math.nan, math.inf], patience=2)
    assert (evaluations.best, evaluations.is_exhausted) == (2.0, True)


def test_steps_without_an_evaluation_count_for_nothing():
    evaluations = make(patience=1)
    assert not evaluations.see(1, {"loss": 1.0})
    assert evaluations.num_worse == 0


def test_a_run_without_patience_goes_on():
    assert not follow([1.0, 2.0, 3.0, 4.0]).is_exhausted


@given(st.lists(st.floats(0, 10), max_size=12), st.integers(0, 12), st.floats(0, 3))
def test_an_interruption_changes_nothing(values: list[float], cut: int, min_delta: float):
    whole = follow(values, patience=3, min_delta=min_delta)
    first = follow(values[:cut], patience=3, min_delta=min_delta)
    second = make(3, min_delta)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for step, value in enumerate(values[cut:], start=len(values[:cut]) + 1):
        second.see(step, {"eval_loss": value})
    assert second.state_dict() == whole.state_dict()


def test_another_metric_begins_anew():
    evaluations = make(metric="eval_accuracy")
    evaluations.load_state_dict(follow([0.5]).state_dict())
    assert evaluations.best is None


def test_patience_alone_watches_the_loss_or_the_reward():
    nothing = CheckpointConfig.model_validate({})
    loss = Evaluations(nothing, EvalConfig.model_validate({"patience": 1}))
    reward = Evaluations(nothing, RolloutEvalConfig.model_validate({"patience": 1}))
    assert (loss.metric, reward.metric) == ("eval_loss", "eval_reward_mean")
    assert not loss.keeps_best


def test_a_metric_that_is_not_measured_is_refused_at_the_first_evaluation():
    with pytest.raises(ConfigError, match=r"measure eval_loss, eval_accuracy\. Did you mean 'eval_accuracy'\?"):
        make(metric="eval_acuracy_loss").check({"eval_loss": 1.0, "eval_accuracy": 0.5, "evaluation_seconds": 1.0})


@pytest.mark.parametrize(("metric", "expected"), [("eval_loss", "min"), ("eval_reward_mean", "max"),
                                                  ("eval_accuracy", "max"), ("eval_margin", "max")])  # fmt: skip
def test_a_name_says_which_way_is_better(metric: str, expected: str):
    assert direction(metric, "auto") == expected
    assert direction(metric, "min") == "min"


def test_a_name_that_does_not_say_is_refused():
    with pytest.raises(ValueError, match=r"set checkpoint\.best_mode to min or max"):
        direction("eval_completion_length_mean", "auto")


@pytest.mark.parametrize(
    ("checkpoint", "evaluation", "has_held_out", "message"),
    [
        ({"best_metric": "loss"}, {}, True, "must be a metric of evaluations"),
        ({"best_metric": "eval_loss"}, {}, False, r"checkpoint\.best_metric needs rows to measure on"),
        ({}, {"patience": 2, "every_steps": 5}, False, r"eval\.patience needs rows to measure on"),
        ({}, {"patience": 2}, True, r"eval\.patience=2 needs evaluations while the run trains"),
    ],
)
def test_watching_what_is_never_measured_is_refused(checkpoint, evaluation, has_held_out, message):
    with pytest.raises(ValueError, match=message):
        check_watching(
            CheckpointConfig.model_validate(checkpoint),
            EvalConfig.model_validate(evaluation),
            has_held_out=has_held_out,
        )
