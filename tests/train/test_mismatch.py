import math

import pytest
import torch

from llmkit.algorithms.mismatch import mismatch
from llmkit.config.algorithms import GRPOConfig
from llmkit.errors import TrainingError
from llmkit.train.mismatch import MAX_WARNINGS, Comparison, MismatchAlarm

AGREED = mismatch(torch.tensor([-1.0, -2.0]), torch.tensor([-1.0, -2.0]))
FAR = mismatch(torch.tensor([-0.01, -2.0]), torch.tensor([-3.0, -2.0]))


def alarm(**settings: object) -> MismatchAlarm:
    return MismatchAlarm(GRPOConfig.model_validate(settings), "vllm")


def test_micro_batches_make_one_comparison():
    comparison = Comparison()
    comparison.add(torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -2.0]))
    comparison.add(torch.tensor([]), torch.tensor([]))
    comparison.add(torch.tensor([-0.25], dtype=torch.float64), torch.tensor([-0.5]))
    whole = mismatch(torch.tensor([-1.0, -2.0, -0.25]), torch.tensor([-1.5, -2.0, -0.5]))
    assert comparison.metrics() == whole


def test_nothing_sampled_is_nothing_measured():
    assert Comparison().metrics() == {}
    alarm(mismatch={"on_alarm": "stop"}).check(1, {})


def test_agreement_is_silent(capsys: pytest.CaptureFixture[str]):
    alarm(mismatch={"on_alarm": "stop"}).check(1, AGREED)
    assert capsys.readouterr().err == ""


def test_an_alarm_says_step_figures_thresholds_and_what_to_do(capsys: pytest.CaptureFixture[str]):
    alarm().check(7, FAR)
    text = capsys.readouterr().err
    assert text.startswith("warning: step 7: the trainer and engine 'vllm' disagree about the sampled tokens: ")
    assert "logprob_mismatch_kl is 7.948 (allowed: 0.01, algorithm.mismatch.max_kl)" in text
    assert "logprob_mismatch_abs_p_max is 0.9403 (allowed: 0.5, algorithm.mismatch.max_abs_p)" in text
    assert "algorithm.correction.action=truncate weighs each token for it, and is off" in text


def test_with_a_correction_it_is_named(capsys: pytest.CaptureFixture[str]):
    alarm(correction={"action": "mask"}).check(1, FAR)
    text = capsys.readouterr().err
    assert "algorithm.correction.action=mask makes up for it within bounds" in text
    assert "is off" not in text


@pytest.mark.parametrize(
    ("thresholds", "named"),
    [({"max_kl": None}, "max_abs_p"), ({"max_abs_p": None}, "max_kl"), ({"max_kl": None, "max_abs_p": None}, "")],
)
def test_each_threshold_can_be_unset(thresholds: dict, named: str, capsys: pytest.CaptureFixture[str]):
    alarm(mismatch=thresholds).check(1, FAR)
    text = capsys.readouterr().err
    assert [name for name in ("max_kl", "max_abs_p") if name in text] == ([named] if named else [])


def test_it_can_end_the_run():
    with pytest.raises(TrainingError, match=r"step 3: .* logprob_mismatch_kl is 7\.948"):
        alarm(mismatch={"on_alarm": "stop"}).check(3, FAR)


def test_a_number_that_is_none_rings(capsys: pytest.CaptureFixture[str]):
    found = mismatch(torch.tensor([-1.0]), torch.tensor([math.nan]))
    alarm().check(1, found)
    text = capsys.readouterr().err
    assert "logprob_mismatch_kl is not a number" in text
    assert "nothing can be learned from them" in text


def test_warnings_come_to_an_end(capsys: pytest.CaptureFixture[str]):
    rings = alarm()
    for step in range(MAX_WARNINGS + 3):
        rings.check(step, FAR)
    text = capsys.readouterr().err
    assert text.count("warning: ") == MAX_WARNINGS
    assert text.rstrip().endswith("Further alarms show in metrics.jsonl alone")
