import math

import torch

from llmkit.engines.inference.native.sampler import RowRules, draw, inverse_cdf, signed, truncate, uniform
from llmkit.types import SamplingParams

CPU = torch.device("cpu")


def split_mix_64(state: int) -> int:
    """The published generator in plain integers."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def test_uniform_is_split_mix_64():
    for seed in (0, 1, 1234567, (1 << 63) + 5, (1 << 64) - 1):
        for position in (0, 1, 5, 1000):
            state = (seed + 0x9E3779B97F4A7C15 * position) & ((1 << 64) - 1)
            expected = (split_mix_64(state) >> 11) * 2.0**-53
            assert uniform(torch.tensor([signed(seed)]), position).item() == expected


def test_draws_have_the_distribution_of_the_logits():
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    count = 100_000
    rules = RowRules.of([SamplingParams()] * count, list(range(count)), CPU)
    tokens, logprobs = draw(probabilities.log().expand(count, 4), rules, position=0)
    # Four standard deviations of a share of 100,000 draws are below 0.0065.
    torch.testing.assert_close(torch.bincount(tokens) / count, probabilities, rtol=0, atol=0.0065)
    torch.testing.assert_close(logprobs, probabilities.log()[tokens])


def test_temperature_zero_is_greedy_and_keeps_the_plain_logprob():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    rules = RowRules.of([SamplingParams(temperature=0)], [0], CPU)
    tokens, logprobs = draw(logits, rules, 0)
    assert tokens.tolist() == [1]
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[:, 1])


def test_logprobs_are_those_of_the_tempered_distribution():
    logits = torch.tensor([[0.0, 2.0]])
    rules = RowRules.of([SamplingParams(temperature=2.0)], [3], CPU)
    tokens, logprobs = draw(logits, rules, 0)
    expected = torch.tensor([-math.log(1 + math.e), 1 - math.log(1 + math.e)])[tokens]
    torch.testing.assert_close(logprobs, expected)


def test_truncation_keeps_the_smallest_set_that_reaches_top_p():
    logprobs = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    kept = truncate(logprobs, torch.tensor([1 << 62]), torch.tensor([0.75]))
    assert kept.isfinite().tolist() == [[False, True, False, True]]
    kept = truncate(logprobs, torch.tensor([3]), torch.tensor([1.0]))
    assert kept.isfinite().tolist() == [[False, True, True, True]]
    kept = truncate(logprobs, torch.tensor([1 << 62]), torch.tensor([0.0]))
    assert kept.isfinite().tolist() == [[False, True, False, False]]


def test_rows_with_other_rules_do_not_touch_each_other():
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    mixed = [SamplingParams(), SamplingParams(top_k=1), SamplingParams(temperature=0)]
    rules = RowRules.of(mixed, [9, 9, 9], CPU)
    tokens, _ = draw(logits.expand(3, -1), rules, 4)
    alone, _ = draw(logits, RowRules.of([SamplingParams()], [9], CPU), 4)
    assert tokens[0] == alone[0]
    assert tokens[1] == tokens[2] == logits.argmax()


def test_a_token_without_probability_is_never_drawn():
    logprobs = torch.tensor([[-math.inf, 0.0, -math.inf]]).expand(3, -1)
    edges = torch.tensor([0.0, 0.5, 1 - 2.0**-53], dtype=torch.float64)
    assert inverse_cdf(logprobs, edges).tolist() == [1, 1, 1]
