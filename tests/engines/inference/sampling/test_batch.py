import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llmkit.engines.inference.sampling.batch import SamplerState, draw, prompt_scores
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.engines.inference.sampling.uniform import uniform
from llmkit.errors import EngineError, RequestError
from llmkit.types import SamplingParams

INFINITY = float("inf")
PROMPT = [3, 7, 7, 11]
DRAWN = [5, 7, 5, 20]


def split_mix_64(state: int) -> int:
    """The published generator in plain integers."""
    mask = (1 << 64) - 1
    z = (state + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def row(sampling: SamplingParams, context: SamplingContext, seed: int = 0, drawn: list[int] = DRAWN) -> SamplerState:
    state = SamplerState(sampling, seed, PROMPT, context)
    for token in drawn:
        state.accept(token)
    return state


def distribution(logits: Tensor, sampling: SamplingParams) -> Tensor:
    """[V] probabilities that the next token of a row is drawn with."""
    size = logits.shape[0]
    reporting = dataclasses.replace(sampling, logprob_kind="processed", num_top_logprobs=size)
    drawn = draw(logits[None], [row(reporting, SamplingContext(size))])
    probabilities = torch.zeros(size)
    for token, logprob in drawn.scores[0].top:
        probabilities[token] = math.exp(logprob)
    assert drawn.scores[0].logprob == pytest.approx(probabilities[drawn.token_ids[0]].log().item(), abs=1e-5)
    return probabilities


def random_logits(rows: int, size: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed)) * 3


def test_uniform_numbers_are_split_mix_64():
    seeds, positions = [0, 1, 1234567, (1 << 63) + 5, (1 << 64) - 1, -3], [0, 1, 5, 1000, 7, 2]
    states = [(seed + 0x9E3779B97F4A7C15 * at) % (1 << 64) for seed, at in zip(seeds, positions, strict=True)]
    assert uniform(seeds, positions).tolist() == [(split_mix_64(state) >> 11) * 2.0**-53 for state in states]


def test_tokens_are_those_whose_share_of_probability_the_number_falls_into():
    # 0.1, 0.3, 0.6: below 0.1 is token 0, below 0.4 token 1.
    logits = torch.tensor([0.1, 0.3, 0.6]).log().expand(200, 3)
    context = SamplingContext(3)
    drawn = draw(logits, [SamplerState(SamplingParams(), seed, [], context) for seed in range(200)])
    numbers = uniform(range(200), [0] * 200)
    assert drawn.token_ids == [0 if number < 0.1 else 1 if number < 0.4 else 2 for number in numbers]
    assert drawn.scores[0].logprob == pytest.approx(math.log([0.1, 0.3, 0.6][drawn.token_ids[0]]))


@pytest.mark.parametrize("size", [50, 5000])
@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=0),
        SamplingParams(top_k=5),
        SamplingParams(top_k=200),
        SamplingParams(top_k=3000),
        SamplingParams(top_p=0.9),
        SamplingParams(top_p=0.9999),
        SamplingParams(top_p=0.0),
        SamplingParams(temperature=1.5, top_p=0.5),
    ],
    ids=str,
)
def test_seeds_give_the_tokens_that_they_always_gave(sampling: SamplingParams, size: int):
    # Whole rows sorted, what is left out set to -inf, and the token found in the running sum in order of ids.
    logits = random_logits(64, size)
    logprobs = (logits / (sampling.temperature or 1.0)).log_softmax(dim=-1)
    ordered, order = logprobs.sort(dim=-1, descending=True)
    before = ordered.exp().cumsum(dim=-1) - ordered.exp()
    out = (torch.arange(size) >= (sampling.top_k or size)) | (before >= sampling.top_p)
    out[:, 0] = False
    kept = logprobs.masked_fill(torch.zeros_like(out).scatter(1, order, out), -INFINITY)
    cumulative = kept.double().exp().cumsum(dim=-1)
    states = [row(sampling, SamplingContext(size), seed) for seed in range(64)]
    target = torch.from_numpy(uniform(range(64), [len(DRAWN)] * 64)) * cumulative[:, -1]
    expected = torch.searchsorted(cumulative, target[:, None], right=True)[:, 0]
    if sampling.temperature == 0:
        expected = logits.argmax(dim=-1)
    drawn = draw(logits, states)
    assert drawn.token_ids == expected.tolist()
    assert [score.logprob for score in drawn.scores] == logprobs.gather(1, expected[:, None])[:, 0].tolist()


def hugging_face(sampling: SamplingParams) -> LogitsProcessorList:
    """The same settings as transformers has them, in our order."""
    made = LogitsProcessorList()
    if sampling.allowed_token_ids is not None:
        made.append(SuppressTokensLogitsProcessor([t for t in range(60) if t not in sampling.allowed_token_ids]))
    if sampling.banned_token_ids:
        made.append(SuppressTokensLogitsProcessor(list(sampling.banned_token_ids)))
    if sampling.min_new_tokens:
        ends = list(sampling.stop_token_ids)
        made.append(MinNewTokensLengthLogitsProcessor(len(PROMPT), sampling.min_new_tokens, ends))
    if sampling.repetition_penalty != 1:
        made.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.logit_bias:
        made.append(SequenceBiasLogitsProcessor([[[token], bias] for token, bias in sampling.logit_bias]))
    if sampling.temperature != 1:
        made.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        made.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        made.append(TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        made.append(MinPLogitsWarper(sampling.min_p))
    return made


KNOBS: list[dict[str, object]] = [
    {},
    {"temperature": 0.6},
    {"top_k": 7},
    {"top_p": 0.8},
    {"min_p": 0.1},
    {"repetition_penalty": 1.7},
    {"repetition_penalty": 0.6},
    {"logit_bias": ((4, 2.5), (7, -3.0))},
    {"allowed_token_ids": (4, 5, 6, 7, 30)},
    {"banned_token_ids": (5, 7, 40)},
    {"min_new_tokens": 5, "stop_token_ids": (12, 13)},
    {"min_new_tokens": 4, "stop_token_ids": (12, 13)},
    {"top_k": 20, "top_p": 0.7},
    {"top_k": 20, "top_p": 0.7, "min_p": 0.2},
]


@pytest.mark.parametrize("knobs", KNOBS, ids=str)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_setting_does_what_it_does_in_transformers(knobs: dict[str, object], seed: int):
    sampling = SamplingParams(**knobs)  # type: ignore[arg-type]
    logits = random_logits(1, 60, seed)
    expected = hugging_face(sampling)(torch.tensor([PROMPT + DRAWN]), logits.clone()).softmax(dim=-1)[0]
    torch.testing.assert_close(distribution(logits[0], sampling), expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_settings_together_do_what_they_do_in_transformers(data: st.DataObject):
    sampling = SamplingParams(
        temperature=data.draw(st.sampled_from([1.0, 0.3, 1.9])),
        top_k=data.draw(st.sampled_from([0, 1, 10, 59])),
        top_p=data.draw(st.sampled_from([1.0, 0.3, 0.97])),
        min_p=data.draw(st.sampled_from([0.0, 0.05, 0.5])),
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.3, 0.8])),
        logit_bias=data.draw(st.sampled_from([(), ((5, 4.0), (50, -1.0))])),
        banned_token_ids=data.draw(st.sampled_from([(), (0, 20, 33)])),
        allowed_token_ids=data.draw(st.sampled_from([None, tuple(range(0, 60, 2))])),
    )
    logits = random_logits(1, 60, data.draw(st.integers(0, 1000)))
    expected = hugging_face(sampling)(torch.tensor([PROMPT + DRAWN]), logits.clone()).softmax(dim=-1)[0]
    torch.testing.assert_close(distribution(logits[0], sampling), expected, rtol=1e-4, atol=1e-6)


def test_penalties_by_hand():
    # 7 is in the prompt and was drawn once, 5 was drawn twice, 3 is in the prompt only.
    logits = torch.zeros(30)
    logits[[3, 5, 7]] = torch.tensor([2.0, -1.0, 3.0])
    edited = logits.clone()
    edited[3] = 2.0 / 2
    edited[5] = -1.0 * 2 - 0.5 - 2 * 0.25
    edited[7] = 3.0 / 2 - 0.5 - 0.25
    edited[20] = 0.0 - 0.5 - 0.25
    sampling = SamplingParams(repetition_penalty=2.0, presence_penalty=0.5, frequency_penalty=0.25)
    torch.testing.assert_close(distribution(logits, sampling), edited.softmax(dim=-1))


def test_presence_and_frequency_leave_the_prompt_alone():
    logits = torch.zeros(30)
    probabilities = distribution(logits, SamplingParams(presence_penalty=1.0))
    assert probabilities[3] == probabilities[0] > probabilities[20]


def test_min_p_by_hand():
    # 0.2 of the likeliest 0.5 is 0.1: the fourth token goes, the rest shares its probability.
    logits = torch.tensor([0.5, 0.3, 0.11, 0.09]).log()
    expected = torch.tensor([0.5, 0.3, 0.11, 0.0]) / 0.91
    context = SamplingContext(4)
    state = SamplerState(SamplingParams(min_p=0.2, logprob_kind="processed", num_top_logprobs=4), 0, [], context)
    top = dict(draw(logits[None], [state]).scores[0].top)
    assert top == pytest.approx({token: math.log(expected[token]) for token in range(3)}, rel=1e-5)


@pytest.mark.parametrize("kind", ["raw", "scaled", "processed"])
def test_the_three_kinds_of_log_probabilities(kind: str):
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    sampling = SamplingParams(temperature=2.0, banned_token_ids=(0,), top_k=2, logprob_kind=kind, num_top_logprobs=3)  # type: ignore[arg-type]
    drawn = draw(logits, [SamplerState(sampling, 1, [], SamplingContext(4))])
    by_hand = {
        "raw": logits[0].log_softmax(-1),
        "scaled": (logits[0] / 2).log_softmax(-1),
        "processed": torch.tensor([-INFINITY, 0.5, 0.0, -INFINITY]).log_softmax(-1),
    }[kind]
    assert drawn.token_ids[0] in (1, 2)
    assert drawn.scores[0].logprob == pytest.approx(by_hand[drawn.token_ids[0]].item())
    expected = sorted(((t, by_hand[t].item()) for t in range(4) if by_hand[t] > -INFINITY), key=lambda pair: -pair[1])
    assert [token for token, _ in drawn.scores[0].top] == [token for token, _ in expected[:3]]
    assert [value for _, value in drawn.scores[0].top] == pytest.approx([value for _, value in expected[:3]])


def test_greedy_rows_take_the_likeliest_after_penalties_and_report_plain_temperature():
    logits = torch.tensor([[3.0, 2.5, 0.0]])
    state = SamplerState(SamplingParams(temperature=0, presence_penalty=1.0), 0, [], SamplingContext(3))
    assert draw(logits, [state]).token_ids == [0]
    state.accept(0)
    drawn = draw(logits, [state])
    assert drawn.token_ids == [1]
    assert drawn.scores[0].logprob == pytest.approx(logits[0].log_softmax(-1)[1].item())


def test_prompt_scores_are_those_of_the_tokens_that_followed():
    logits = random_logits(300, 20)
    token_ids = [(3 * place) % 20 for place in range(300)]
    sampling = SamplingParams(temperature=0.5, num_top_logprobs=2)
    scores = prompt_scores(logits, token_ids, sampling)
    expected = (logits / 0.5).log_softmax(-1)
    for place, score in enumerate(scores):
        assert score.logprob == pytest.approx(expected[place, token_ids[place]].item(), rel=1e-5)
        assert [token for token, _ in score.top] == expected[place].topk(2)[1].tolist()
    raw = prompt_scores(logits.bfloat16(), token_ids, SamplingParams(logprob_kind="raw"))
    assert raw[7].logprob == pytest.approx(logits.bfloat16().float().log_softmax(-1)[7, token_ids[7]].item())


RICH = [
    SamplingParams(),
    SamplingParams(temperature=0),
    SamplingParams(temperature=0.3),
    SamplingParams(top_k=3),
    SamplingParams(top_k=1500, top_p=0.95),
    SamplingParams(top_p=0.9999),
    SamplingParams(min_p=0.1),
    SamplingParams(repetition_penalty=1.5, frequency_penalty=0.3),
    SamplingParams(temperature=0, repetition_penalty=1.5),
    SamplingParams(logit_bias=((9, 3.0),), logprob_kind="raw", num_top_logprobs=3),
    SamplingParams(banned_token_ids=(4,), logprob_kind="processed", num_top_logprobs=2, top_k=50),
    SamplingParams(min_new_tokens=30, stop_token_ids=(8,), logprob_kind="processed"),
]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [64, 3000])
def test_a_row_has_the_same_result_to_the_bit_in_any_company(kind: torch.dtype, size: int):
    logits = random_logits(1, size).to(kind).expand(len(RICH), -1)
    context = SamplingContext(size)

    def states() -> list[SamplerState]:
        return [row(sampling, context, seed) for seed, sampling in enumerate(RICH)]

    together = draw(logits, states())
    for place, state in enumerate(states()):
        alone = draw(logits[:1], [state])
        assert (alone.token_ids[0], alone.scores[0]) == (together.token_ids[place], together.scores[place])
    for mate in range(1, len(RICH)):
        pair = states()
        company = draw(logits[:2], [pair[mate], pair[0]])
        assert (company.token_ids[1], company.scores[1]) == (together.token_ids[0], together.scores[0])


def test_logits_are_left_as_they_were():
    logits = random_logits(len(RICH), 64)
    before = logits.clone()
    draw(logits, [row(sampling, SamplingContext(64)) for sampling in RICH])
    assert torch.equal(logits, before)


@pytest.mark.parametrize(
    "sampling",
    [
        SamplingParams(),
        SamplingParams(temperature=0.7, top_k=4, top_p=0.9),
        SamplingParams(min_p=0.05, logit_bias=((1, 1.0),), banned_token_ids=(2,)),
    ],
    ids=str,
)
def test_draws_have_the_distribution_that_they_report(sampling: SamplingParams):
    logits = random_logits(1, 8, seed=5)[0] / 3
    count = 20_000
    context = SamplingContext(8)
    drawn = draw(logits.expand(count, -1), [row(sampling, context, seed) for seed in range(count)])
    expected = distribution(logits, sampling) * count
    found = torch.bincount(torch.tensor(drawn.token_ids), minlength=8).float()
    possible = expected > 0
    assert found[~possible].sum() == 0
    chi_square = ((found - expected)[possible] ** 2 / expected[possible]).sum()
    # 7 degrees of freedom at most: 24.3 is passed once in a thousand times.
    assert chi_square < 24.3


def test_successive_draws_of_one_row_have_its_distribution():
    state = SamplerState(SamplingParams(), 99, [], SamplingContext(4))
    logits = torch.tensor([[0.1, 0.2, 0.3, 0.4]]).log()
    found = torch.zeros(4)
    for _ in range(3000):
        (token,) = draw(logits, [state]).token_ids
        state.accept(token)
        found[token] += 1
    expected = torch.tensor([300.0, 600.0, 900.0, 1200.0])
    # 3 degrees of freedom: 16.3 is passed once in a thousand times.
    assert ((found - expected) ** 2 / expected).sum() < 16.3


def test_of_equally_likely_tokens_the_first_ones_stay():
    logits = torch.tensor([[1.0, 2.0, 1.0, 1.0, 1.0]])
    for seed in range(40):
        assert draw(logits, [SamplerState(SamplingParams(top_k=3), seed, [], SamplingContext(5))]).token_ids[0] < 3


def test_tokens_that_the_model_rules_out_are_never_drawn():
    logits = torch.full((50, 10), -INFINITY)
    logits[:, 4] = 0.0
    logits[:, 6] = -1.0
    for sampling in (SamplingParams(), SamplingParams(top_p=0.99), SamplingParams(top_k=8), SamplingParams(min_p=0.1)):
        states = [SamplerState(sampling, seed, [4], SamplingContext(10)) for seed in range(50)]
        drawn = draw(logits.half(), states)
        assert set(drawn.token_ids) == {4, 6}
        assert not drawn.failures


@pytest.mark.parametrize("bad", [math.nan, INFINITY, -INFINITY])
def test_broken_logits_are_the_models_fault_and_its_rows_only(bad: float):
    logits = torch.zeros(3, 6)
    logits[1] = bad
    context = SamplingContext(6)
    for sampling in (SamplingParams(), SamplingParams(temperature=0), SamplingParams(top_p=0.5, repetition_penalty=2)):
        drawn = draw(logits, [SamplerState(sampling, seed, [1], context) for seed in range(3)])
        assert list(drawn.failures) == [1]
        assert type(drawn.failures[1]) is EngineError
        assert "token 1 of the completion: the model's logits are" in str(drawn.failures[1])
        assert drawn.token_ids[1] == -1
        assert min(drawn.token_ids[0], drawn.token_ids[2]) >= 0


def test_settings_that_leave_nothing_are_named():
    sampling = SamplingParams(allowed_token_ids=(2,), stop_token_ids=(2,), min_new_tokens=3)
    drawn = draw(torch.zeros(1, 6), [SamplerState(sampling, 0, [], SamplingContext(6))])
    assert isinstance(drawn.failures[0], RequestError)
    assert str(drawn.failures[0]) == (
        "token 1 of the completion: allowed_token_ids, min_new_tokens=3 together leave no token to draw; "
        "loosen one of them"
    )


class Words:
    """A tokenizer with a gap at 3, whose model has eight ids."""

    def get_vocab(self) -> dict[str, int]:
        return {"a": 0, "b": 1, "c": 2, "e": 4, "f": 5}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_ids_that_the_tokenizer_does_not_have_are_never_drawn(temperature: float):
    context = SamplingContext(8, (), Words())  # type: ignore[arg-type]
    logits = torch.zeros(60, 8)
    logits[:, [3, 6, 7]] = 5.0
    sampling = SamplingParams(temperature=temperature)
    drawn = draw(logits, [SamplerState(sampling, seed, [7], context) for seed in range(60)])
    assert set(drawn.token_ids) <= {0, 1, 2, 4, 5}
    # What training compares with is the model's own distribution, padding and all.
    assert drawn.scores[0].logprob == pytest.approx(-math.log(5 + 3 * math.exp(5.0)))


def test_the_end_of_the_text_waits_for_min_new_tokens():
    logits = torch.tensor([[0.0, 0.0, 9.0]])
    state = SamplerState(SamplingParams(temperature=0, min_new_tokens=2), 0, [], SamplingContext(3, (2,)))
    tokens: list[int] = []
    for _ in range(3):
        tokens += draw(logits, [state]).token_ids
        state.accept(tokens[-1])
    assert [token == 2 for token in tokens] == [False, False, True]


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (SamplingParams(temperature=-1), "temperature=-1: give a number 0 or more"),
        (SamplingParams(temperature=math.nan), "temperature=nan"),
        (SamplingParams(top_p=1.5), "top_p=1.5: give a number from 0 to 1"),
        (SamplingParams(top_k=-2), "top_k=-2"),
        (SamplingParams(min_p=2), "min_p=2"),
        (SamplingParams(max_new_tokens=0), "max_new_tokens=0: give a number 1 or more"),
        (SamplingParams(max_new_tokens=4, min_new_tokens=5), "min_new_tokens=5: give a number from 0 to 4"),
        (SamplingParams(repetition_penalty=0), "repetition_penalty=0: give a number above 0; 1 is off"),
        (SamplingParams(presence_penalty=INFINITY), "presence_penalty=inf: give a number that is finite"),
        (SamplingParams(logit_bias=((1, math.nan),)), "logit_bias of token 1 is nan"),
        (SamplingParams(logit_bias=((9, 1.0),)), "logit_bias: token 9 is not in the vocabulary; ids go from 0 to 7"),
        (SamplingParams(stop_token_ids=(-1,)), "stop_token_ids: token -1"),
        (SamplingParams(allowed_token_ids=(1,), banned_token_ids=(1,)), "leave no token to draw"),
        (SamplingParams(stop=("",)), "stop has an empty string, which is everywhere; leave it out"),
        (SamplingParams(stop=("a",)), "stop needs a tokenizer"),
    ],
    ids=str,
)
def test_settings_that_make_no_sense_are_refused(sampling: SamplingParams, message: str):
    with pytest.raises(RequestError, match=message):
        SamplerState(sampling, 0, [], SamplingContext(8))


@settings(max_examples=100, deadline=None)
@given(
    temperature=st.sampled_from([0.0, 1e-7, 1e-4, 1.0, 1e6]),
    top_p=st.sampled_from([0.0, 1e-9, 0.5, 1.0]),
    top_k=st.integers(0, 40),
    min_p=st.sampled_from([0.0, 1e-9, 1.0]),
    penalty=st.sampled_from([1e-3, 1.0, 1e3]),
    scale=st.sampled_from([0.0, 1.0, 1e4]),
    kind=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    reported=st.sampled_from(["raw", "scaled", "processed"]),
)
def test_extreme_settings_give_a_token_and_numbers(
    temperature: float, top_p: float, top_k: int, min_p: float, penalty: float, scale: float, kind: torch.dtype,
    reported: str,
):  # fmt: skip
    sampling = SamplingParams(
        temperature=temperature, top_p=top_p, top_k=top_k, min_p=min_p, repetition_penalty=penalty,
        logprob_kind=reported, num_top_logprobs=3,  # type: ignore[arg-type]
    )  # fmt: skip
    logits = (random_logits(2, 30) * scale / 3).to(kind)
    drawn = draw(logits, [row(sampling, SamplingContext(30), seed) for seed in range(2)])
    assert not drawn.failures
    for score in drawn.scores:
        assert score.logprob is not None
        assert all(math.isfinite(value) for value in (score.logprob, *(value for _, value in score.top)))
