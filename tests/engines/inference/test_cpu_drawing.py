"""Tokens that compiled code draws, beside those of PyTorch."""

import dataclasses
import math

import pytest
import torch

from llmkit.engines.inference.native.cpu.runner import CpuRunner
from llmkit.engines.inference.sampling.batch import SamplerState, draw
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.sampling.plain import PlainDraws
from llmkit.types import SamplingParams

from .cpu_models import make_model, make_policy

RULES = [
    SamplingParams(temperature=0),
    SamplingParams(),
    SamplingParams(temperature=0.6),
    SamplingParams(temperature=3.0),
    SamplingParams(logprob_kind="any"),
    SamplingParams(top_k=3),
    SamplingParams(banned_token_ids=(1, 2)),
    SamplingParams(num_top_logprobs=2),
]


def make_runner(size: int, dtype=torch.float32, **options) -> CpuRunner:
    return CpuRunner(make_policy(make_model("llama", dtype, vocab_size=size), dtype), **options)


def make_logits(rows: int, size: int, dtype=torch.float32):
    return (torch.randn(rows, size, generator=torch.Generator().manual_seed(3)) * 3).to(dtype)


def make_states(size: int, rows: int, rules=RULES) -> list[SamplerState]:
    context = SamplingContext(size)
    return [SamplerState(rules[row % len(rules)], row, [1], context) for row in range(rows)]


@pytest.mark.parametrize("architecture", ["native", "haswell"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [7, 256, 257, 1000])
def test_tokens_and_log_probabilities_are_those_of_torch(size, dtype, architecture):
    logits, states = make_logits(160, size, dtype), make_states(size, 160, RULES[:5])
    runner = make_runner(size, dtype, architecture=architecture, num_threads=2)
    ours, theirs = draw(logits, states, runner.draw), draw(logits, states)
    assert ours.token_ids == theirs.token_ids
    for one, other in zip(ours.scores, theirs.scores, strict=True):
        assert one.logprob == (None if other.logprob is None else pytest.approx(other.logprob, abs=2e-5))
    assert not ours.failures


def test_rows_with_rules_keep_them_among_plain_ones():
    logits, states = make_logits(64, 300), make_states(300, 64)
    ours, theirs = draw(logits, states, make_runner(300).draw), draw(logits, states)
    assert ours.token_ids == theirs.token_ids
    assert [len(score.top) for score in ours.scores] == [len(score.top) for score in theirs.scores]


def test_a_row_depends_on_itself_alone():
    runner, logits, states = make_runner(300), make_logits(32, 300), make_states(300, 32)
    together = draw(logits, states, runner.draw)
    for row, state in enumerate(states):
        alone = draw(logits[row : row + 1], [state], runner.draw)
        assert (alone.token_ids[0], alone.scores[0].logprob) == (together.token_ids[row], together.scores[row].logprob)


def test_numbers_from_end_to_end_find_every_token_as_often_as_it_is_likely():
    # 0.1, 0.2, 0.3, 0.4 spread over two sections, all others impossible; the numbers walk through [0, 1).
    logits = torch.full((1000, 400), -math.inf)
    logits[:, [3, 255, 256, 390]] = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    draws = PlainDraws.of(range(1000), make_states(400, 1000, [SamplingParams()]))
    draws = draws._replace(uniforms=(torch.arange(1000) / 1000).double().numpy())
    token_ids, logprobs = make_runner(400).draw(logits, draws)
    assert [token_ids.count(token) for token in (3, 255, 256, 390)] == pytest.approx([100, 200, 300, 400], abs=1)
    assert token_ids == sorted(token_ids)
    assert {round(math.exp(logprob), 5) for logprob in logprobs} == {0.1, 0.2, 0.3, 0.4}


def test_padding_of_the_vocabulary_counts_and_is_never_drawn():
    logits = torch.zeros(50, 20)
    logits[:, 15:] = 30.0
    draws = PlainDraws.of(range(50), make_states(20, 50, [SamplingParams(), SamplingParams(temperature=0)]))
    token_ids, logprobs = make_runner(20).draw(logits, draws._replace(num_drawable=12))
    assert max(token_ids) < 12
    assert logprobs == pytest.approx([-30 - math.log(5)] * 50, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_fail_their_row_alone(bad, temperature):
    logits = make_logits(3, 300)
    logits[1, slice(None) if bad == -math.inf else 17] = bad
    rules = [SamplingParams(temperature=temperature)]
    ours = draw(logits, make_states(300, 3, rules), make_runner(300).draw)
    theirs = draw(logits, make_states(300, 3, rules))
    assert ours.token_ids == theirs.token_ids
    assert ours.token_ids[1] == -1
    assert str(ours.failures[1]) == str(theirs.failures[1])


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_tokens_are_the_same_whether_or_not_log_probabilities_are_asked_for(rule):
    logits, silent = make_logits(40, 300), dataclasses.replace(rule, logprob_kind="any", num_top_logprobs=0)
    for plain in (None, make_runner(300).draw):
        found = draw(logits, make_states(300, 40, [silent]), plain)
        assert found.token_ids == draw(logits, make_states(300, 40, [rule]), plain).token_ids
        assert {score.logprob for score in found.scores} == {None}
