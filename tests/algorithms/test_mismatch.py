import math

import pytest
import torch

from llmkit.algorithms.mismatch import mismatch


def test_by_hand():
    # policy 1/4 where the engine had 1/2: k1 = ln 2, k3 = 1/2 - 1 + ln 2
    found = mismatch(torch.tensor([0.25]).log(), torch.tensor([0.5]).log())
    assert found["logprob_mismatch_k1"] == pytest.approx(math.log(2))
    assert found["logprob_mismatch_kl"] == pytest.approx(math.log(2) - 0.5)
    assert found["logprob_mismatch_abs_p_max"] == found["logprob_mismatch_abs_p_mean"] == pytest.approx(0.25)


def test_quantiles_are_values_of_the_nearest_rank():
    # 101 tokens of ratios 1/100, 2/100 ... 101/100, in any order: rank 1 of 0 to 100 is the second
    ratios = torch.arange(1, 102, dtype=torch.float64) / 100
    shuffled = ratios[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    found = mismatch(shuffled.log() - 1, torch.full((101,), -1.0, dtype=torch.float64))
    names = ("p01", "p50", "p99", "max")
    assert [found[f"logprob_mismatch_ratio_{name}"] for name in names] == pytest.approx([0.02, 0.51, 1.0, 1.01])


def test_equal_probabilities_are_no_mismatch():
    found = mismatch(torch.tensor([-0.5, -3.0]), torch.tensor([-0.5, -3.0]))
    for name, value in found.items():
        assert value == (1.0 if "ratio" in name else 0.0), name


def test_one_far_token_shows_in_the_greatest_and_not_in_the_middle():
    logprobs = torch.full((1000,), -1.0)
    logprobs[7] = -0.01
    found = mismatch(logprobs, torch.full((1000,), -1.0))
    assert found["logprob_mismatch_ratio_p50"] == found["logprob_mismatch_ratio_p99"] == 1.0
    assert found["logprob_mismatch_ratio_max"] == pytest.approx(math.exp(0.99))
    assert found["logprob_mismatch_abs_p_max"] == pytest.approx(math.exp(-0.01) - math.exp(-1))


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_what_is_no_probability_is_not_lost(broken: float):
    found = mismatch(torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, broken]))
    assert not math.isfinite(found["logprob_mismatch_k1"])
    assert not math.isfinite(found["logprob_mismatch_kl"])
    assert not math.isfinite(found["logprob_mismatch_ratio_max"])
